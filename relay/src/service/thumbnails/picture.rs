//! Makes a picture small. Pure: bytes go in, bytes come out; what a picture says of itself is looked at before anything of its size is allocated.

use fast_image_resize::{ResizeOptions, Resizer};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::metadata::Orientation;
use image::{DynamicImage, ExtendedColorType, GenericImageView, ImageDecoder, ImageEncoder, ImageReader, Limits};
use std::io::Cursor;

/// Longest side of a picture in pixels, as its header says.
const SIDE_MAX: u32 = 30_000;
/// Bytes that decoding takes at most for each pixel: coefficients of a progressive JPEG, or two bytes for each of four channels and a line's filters.
const BYTES_PER_PIXEL: u64 = 12;
/// What stands before the pixels may unfold to so many bytes: profiles and texts are compressed.
const HEADER_MAX_BYTES: u64 = 16 << 20;
/// Quality of what is shown without transparency.
const JPEG_QUALITY: u8 = 80;
/// A colour profile that is larger is not for a small picture.
const PROFILE_MAX_BYTES: usize = 16 * 1024;

/// Why there is no small picture of these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// They are no picture, or a damaged one.
    Unreadable,
    /// It has more pixels than may be decoded.
    TooManyPixels,
}

/// A small picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// `image/jpeg` or `image/webp`.
    pub media_type: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Bytes that decoding this picture may take, by its header.
pub(super) fn memory_of(bytes: &[u8]) -> Result<u64, Refusal> {
    let decoder = decoder(bytes)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(Refusal::Unreadable);
    }
    if width > SIDE_MAX || height > SIDE_MAX {
        return Err(Refusal::TooManyPixels);
    }
    Ok(u64::from(width) * u64::from(height) * BYTES_PER_PIXEL + bytes.len() as u64)
}

/// The picture, upright, at most `side` pixels wide and high; never larger than it is.
pub(super) fn shrink(bytes: &[u8], side: u32, memory_max: u64) -> Result<Picture, Refusal> {
    let mut decoder = decoder(bytes)?;
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(memory_max);
    decoder.set_limits(limits).map_err(|_| Refusal::TooManyPixels)?;
    if decoder.total_bytes() > memory_max {
        return Err(Refusal::TooManyPixels);
    }
    // What is wrong beside the pixels is no reason not to show them.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let profile = decoder.icc_profile().ok().flatten().filter(|profile| profile.len() <= PROFILE_MAX_BYTES);
    let whole = DynamicImage::from_decoder(decoder).map_err(|_| Refusal::Unreadable)?;
    let (width, height) = fitting(whole.dimensions(), side);
    let mut small = DynamicImage::new(width, height, whole.color());
    Resizer::new().resize(&whole, &mut small, &ResizeOptions::new()).map_err(|_| Refusal::Unreadable)?;
    drop(whole);
    small.apply_orientation(orientation);
    encode(&small, profile).map_err(|_| Refusal::Unreadable)
}

fn decoder(bytes: &[u8]) -> Result<impl ImageDecoder + '_, Refusal> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|_| Refusal::Unreadable)?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(HEADER_MAX_BYTES);
    reader.limits(limits);
    reader.into_decoder().map_err(|_| Refusal::Unreadable)
}

/// Width and height of a picture that fits into a square.
fn fitting((width, height): (u32, u32), side: u32) -> (u32, u32) {
    let longest = width.max(height).max(1);
    if longest <= side {
        return (width, height);
    }
    let part = |length: u32| u32::try_from(u64::from(length) * u64::from(side) / u64::from(longest)).unwrap_or(side).max(1);
    (part(width), part(height))
}

/// Photographs as JPEG, which is a tenth; what one can see through as WebP, which keeps that.
fn encode(picture: &DynamicImage, profile: Option<Vec<u8>>) -> image::ImageResult<Picture> {
    let mut bytes = Vec::new();
    let seen_through = picture.color().has_alpha().then(|| picture.to_rgba8()).filter(|p| p.pixels().any(|pixel| pixel.0[3] != u8::MAX));
    let media_type = match seen_through {
        Some(pixels) => {
            let mut encoder = WebPEncoder::new_lossless(&mut bytes);
            if let Some(profile) = profile {
                encoder.set_icc_profile(profile).map_err(image::ImageError::Unsupported)?;
            }
            encoder.write_image(&pixels, pixels.width(), pixels.height(), ExtendedColorType::Rgba8)?;
            "image/webp"
        }
        None => {
            let pixels = picture.to_rgb8();
            let mut encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
            // A profile of grey means nothing to colours.
            if let Some(profile) = profile.filter(|_| picture.color().has_color()) {
                encoder.set_icc_profile(profile).map_err(image::ImageError::Unsupported)?;
            }
            encoder.write_image(&pixels, pixels.width(), pixels.height(), ExtendedColorType::Rgb8)?;
            "image/jpeg"
        }
    };
    Ok(Picture { media_type, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::png::PngEncoder;
    use image::{ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};

    const MEMORY: u64 = 64 << 20;

    /// Red on its left half, blue on its right.
    fn two_halves(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, _| if x < width / 2 { Rgb([250, 0, 0]) } else { Rgb([0, 0, 250]) })
    }

    fn as_format(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        picture.write_to(&mut out, format).unwrap();
        out.into_inner()
    }

    fn read(picture: &Picture) -> DynamicImage {
        image::load_from_memory(&picture.bytes).unwrap()
    }

    fn is_red(pixel: Rgba<u8>) -> bool {
        pixel.0[0] > 200 && pixel.0[2] < 60
    }

    #[test]
    fn every_format_becomes_small_and_keeps_its_shape() {
        let picture = DynamicImage::ImageRgb8(two_halves(600, 300));
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP] {
            let made = shrink(&as_format(&picture, format), 256, MEMORY).unwrap();
            assert_eq!(made.media_type, "image/jpeg", "{format:?}");
            let small = read(&made);
            assert_eq!(small.dimensions(), (256, 128), "{format:?}");
            assert!(is_red(small.get_pixel(20, 60)) && !is_red(small.get_pixel(230, 60)), "{format:?}");
            assert!(made.bytes.len() < 6000, "{format:?}: {} bytes", made.bytes.len());
        }
        // Neither larger than it is, nor without a side.
        assert_eq!(
            read(&shrink(&as_format(&DynamicImage::ImageRgb8(two_halves(40, 20)), ImageFormat::Png), 256, MEMORY).unwrap()).dimensions(),
            (40, 20)
        );
        assert_eq!(
            read(&shrink(&as_format(&DynamicImage::ImageRgb8(two_halves(3000, 2)), ImageFormat::Png), 256, MEMORY).unwrap()).dimensions(),
            (256, 1)
        );
    }

    #[test]
    fn what_one_can_see_through_stays_so() {
        let glass = RgbaImage::from_fn(300, 300, |x, _| Rgba([9, 200, 9, if x < 150 { 0 } else { 255 }]));
        let made = shrink(&as_format(&DynamicImage::ImageRgba8(glass), ImageFormat::Png), 256, MEMORY).unwrap();
        assert_eq!(made.media_type, "image/webp");
        let small = read(&made).to_rgba8();
        assert_eq!((small.get_pixel(10, 10).0[3], small.get_pixel(240, 10).0[3]), (0, 255));
        let deep = DynamicImage::ImageRgb8(two_halves(300, 300)).to_rgb16();
        assert_eq!(shrink(&as_format(&DynamicImage::ImageRgb16(deep), ImageFormat::Png), 256, MEMORY).unwrap().media_type, "image/jpeg");
    }

    #[test]
    fn a_camera_held_sideways_makes_an_upright_picture() {
        let orientation = |value: u8| [b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0", &[value, 0, 0, 0, 0, 0, 0][..]].concat();
        // 6: what is on the left of the sensor belongs to the top.
        for (value, size, top_is_red) in [(1, (256, 128), true), (6, (128, 256), true), (8, (128, 256), false)] {
            let mut bytes = Vec::new();
            let picture = two_halves(600, 300);
            let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 90);
            encoder.set_exif_metadata(orientation(value)).unwrap();
            encoder.write_image(&picture, 600, 300, ExtendedColorType::Rgb8).unwrap();
            let small = read(&shrink(&bytes, 256, MEMORY).unwrap());
            assert_eq!(small.dimensions(), size, "{value}");
            assert_eq!(is_red(small.get_pixel(10, 10)), top_is_red, "{value}");
        }
    }

    /// A PNG whose header claims this size; what follows is for a single pixel.
    fn liar(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes).write_image(&[1, 2, 3], 1, 1, ExtendedColorType::Rgb8).unwrap();
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        bytes
    }

    #[test]
    fn hostile_pictures_are_refused() {
        assert_eq!(memory_of(&liar(60_000, 60_000)), Err(Refusal::TooManyPixels));
        assert_eq!(memory_of(&liar(20_000, 20_000)).unwrap(), 20_000 * 20_000 * BYTES_PER_PIXEL + liar(1, 1).len() as u64);
        assert_eq!(shrink(&liar(20_000, 20_000), 256, MEMORY), Err(Refusal::TooManyPixels));
        assert_eq!(memory_of(&liar(0, 9)), Err(Refusal::Unreadable));
        // Fewer bytes than its header promises.
        assert_eq!(shrink(&liar(500, 500), 256, MEMORY), Err(Refusal::Unreadable));
        for no_picture in
            [&b""[..], b"GIF89a", b"<svg onload=alert(1)>", b"BM......", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBPVP8 ", b"\xff\xd8\xff\xe0"]
        {
            assert_eq!(memory_of(no_picture), Err(Refusal::Unreadable), "{no_picture:?}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        /// Whatever is broken in it: a picture or a refusal, and never more memory than allowed.
        #[test]
        fn damage_ends_in_a_picture_or_a_refusal(at in 0..1000usize, with in proptest::prelude::any::<u8>(), cut in 0..1000usize, format in 0..4usize) {
            let formats = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP];
            let mut bytes = as_format(&DynamicImage::ImageRgb8(two_halves(32, 16)), formats[format]);
            let end = bytes.len();
            bytes[at % end] = with;
            if cut % 2 == 0 {
                bytes.truncate(cut % end + 1);
            }
            if memory_of(&bytes).is_ok_and(|memory| memory < MEMORY) {
                let _ = shrink(&bytes, 16, MEMORY);
            }
        }
    }
}
