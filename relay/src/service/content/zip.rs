//! The zip format, as far as writing an archive from front to back needs it: pure, and without ever going back to what was written.
//!
//! Sizes and checksum of a file stand behind it (a data descriptor), since they are known then. What is too large for 32 bits is written as Zip64. Names
//! are UTF-8 and say so; times are in the old field and, to the second, in an extra one.

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use std::io::{self, Write};

const LOCAL: u32 = 0x0403_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const END_64_LOCATOR: u32 = 0x0706_4b50;

/// Versions of the format that a reader must know: directories and deflate; Zip64.
const NEEDS: u16 = 20;
const NEEDS_64: u16 = 45;
/// Written as on Unix, by version 4.5 of the format.
const MADE_BY: u16 = (3 << 8) | 45;
/// Sizes stand behind the file; names are UTF-8.
const BEHIND: u16 = 1 << 3;
const UTF8: u16 = 1 << 11;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const MAX_32: u64 = u32::MAX as u64;
/// Files from this size on, in bytes, are described in 64 bits: deflate may make a file that does not shrink a little larger.
const LARGE_FROM: u64 = MAX_32 - (16 << 20);

/// How much of a file is looked at to decide whether it gets smaller, in bytes.
const SAMPLE_BYTES: usize = 32 * 1024;

/// An archive that is being written. Every call returns the bytes that come next.
#[derive(Debug, Default)]
pub(super) struct Zip {
    entries: Vec<Record>,
    offset: u64,
    open: Option<Open>,
}

/// What the directory at the end says of an entry.
#[derive(Debug)]
struct Record {
    name: String,
    is_directory: bool,
    method: u16,
    is_large: bool,
    mtime_s: i64,
    offset: u64,
    crc: u32,
    packed_bytes: u64,
    size_bytes: u64,
}

/// A file whose content is being written.
#[derive(Debug)]
struct Open {
    record: Record,
    promised_bytes: u64,
    crc: Crc,
    deflate: Option<DeflateEncoder<Vec<u8>>>,
}

impl Zip {
    /// A directory; its name ends in a slash here, whatever was given.
    pub(super) fn directory(&mut self, name: &str, mtime_s: i64) -> Vec<u8> {
        let name = format!("{}/", name.trim_end_matches('/'));
        let record = Record { name, is_directory: true, ..Record::at(self.offset, mtime_s) };
        let out = record.local();
        self.offset += out.len() as u64;
        self.entries.push(record);
        out
    }

    /// Begins a file of this size.
    pub(super) fn begin(&mut self, name: &str, mtime_s: i64, size_bytes: u64, deflate: bool) -> Vec<u8> {
        let record = Record {
            name: name.to_owned(),
            method: if deflate { DEFLATED } else { STORED },
            is_large: size_bytes >= LARGE_FROM,
            ..Record::at(self.offset, mtime_s)
        };
        let out = record.local();
        self.offset += out.len() as u64;
        let deflate = deflate.then(|| DeflateEncoder::new(Vec::new(), Compression::fast()));
        self.open = Some(Open { record, promised_bytes: size_bytes, crc: Crc::new(), deflate });
        out
    }

    /// More of the file's content.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let open = self.open.as_mut().ok_or_else(|| io::Error::other("no file is open"))?;
        open.crc.update(bytes);
        open.record.size_bytes += bytes.len() as u64;
        let out = match &mut open.deflate {
            None => bytes.to_vec(),
            Some(deflate) => {
                deflate.write_all(bytes)?;
                std::mem::take(deflate.get_mut())
            }
        };
        open.record.packed_bytes += out.len() as u64;
        self.offset += out.len() as u64;
        Ok(out)
    }

    /// Ends the file. One that is not as long as was promised is an error.
    pub(super) fn end(&mut self) -> io::Result<Vec<u8>> {
        let Open { mut record, promised_bytes, crc, deflate } = self.open.take().ok_or_else(|| io::Error::other("no file is open"))?;
        if record.size_bytes != promised_bytes {
            return Err(io::Error::other(format!("a file has {} bytes instead of {promised_bytes}", record.size_bytes)));
        }
        let mut out = deflate.map_or(Ok(Vec::new()), DeflateEncoder::finish)?;
        record.packed_bytes += out.len() as u64;
        record.crc = crc.sum();
        put(&mut out, &[DESCRIPTOR, record.crc]);
        if record.is_large {
            put_64(&mut out, &[record.packed_bytes, record.size_bytes]);
        } else {
            put(&mut out, &[low(record.packed_bytes), low(record.size_bytes)]);
        }
        self.offset += out.len() as u64;
        self.entries.push(record);
        Ok(out)
    }

    /// Ends the archive: the directory of all that was written.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut out = Vec::new();
        for record in &self.entries {
            record.central(&mut out);
        }
        let (count, start, length) = (self.entries.len() as u64, self.offset, out.len() as u64);
        if count >= u64::from(u16::MAX) || start >= MAX_32 || length >= MAX_32 {
            let at = start + length;
            put(&mut out, &[END_64]);
            put_64(&mut out, &[44]);
            put_16(&mut out, &[MADE_BY, NEEDS_64]);
            put(&mut out, &[0, 0]);
            put_64(&mut out, &[count, count, length, start]);
            put(&mut out, &[END_64_LOCATOR, 0]);
            put_64(&mut out, &[at]);
            put(&mut out, &[1]);
        }
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        put(&mut out, &[END]);
        put_16(&mut out, &[0, 0, count, count]);
        put(&mut out, &[low(length), low(start)]);
        put_16(&mut out, &[0]);
        out
    }
}

impl Record {
    fn at(offset: u64, mtime_s: i64) -> Self {
        Self {
            name: String::new(),
            is_directory: false,
            method: STORED,
            is_large: false,
            mtime_s,
            offset,
            crc: 0,
            packed_bytes: 0,
            size_bytes: 0,
        }
    }

    fn flags(&self) -> u16 {
        if self.is_directory { UTF8 } else { UTF8 | BEHIND }
    }

    /// The time as an extra field: seconds since 1970, where they fit.
    fn time_extra(&self) -> Vec<u8> {
        let Ok(seconds) = i32::try_from(self.mtime_s) else { return Vec::new() };
        let mut extra = Vec::new();
        put_16(&mut extra, &[0x5455, 5]);
        extra.push(1);
        extra.extend_from_slice(&seconds.to_le_bytes());
        extra
    }

    fn local(&self) -> Vec<u8> {
        let (mut out, mut extra) = (Vec::with_capacity(64 + self.name.len()), self.time_extra());
        if self.is_large {
            put_16(&mut extra, &[1, 16]);
            put_64(&mut extra, &[0, 0]);
        }
        put(&mut out, &[LOCAL]);
        let (time, date) = dos_time(self.mtime_s);
        put_16(&mut out, &[if self.is_large { NEEDS_64 } else { NEEDS }, self.flags(), self.method, time, date]);
        let unknown = if self.is_large { u32::MAX } else { 0 };
        put(&mut out, &[0, unknown, unknown]);
        put_16(&mut out, &[self.name.len() as u16, extra.len() as u16]);
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(&extra);
        out
    }

    fn central(&self, out: &mut Vec<u8>) {
        // Of what does not fit the 32 bits of its field, all ones stand there, and the number in the extra field, in this order.
        let large: Vec<u64> = [self.size_bytes, self.packed_bytes, self.offset].into_iter().filter(|n| *n >= MAX_32).collect();
        let mut extra = self.time_extra();
        if !large.is_empty() {
            put_16(&mut extra, &[1, 8 * large.len() as u16]);
            put_64(&mut extra, &large);
        }
        let needs = if self.is_large || !large.is_empty() { NEEDS_64 } else { NEEDS };
        put(out, &[CENTRAL]);
        let (time, date) = dos_time(self.mtime_s);
        put_16(out, &[MADE_BY, needs, self.flags(), self.method, time, date]);
        put(out, &[self.crc, low(self.packed_bytes), low(self.size_bytes)]);
        put_16(out, &[self.name.len() as u16, extra.len() as u16, 0, 0, 0]);
        let mode: u32 = if self.is_directory { (0o040_755 << 16) | 0x10 } else { 0o100_644 << 16 };
        put(out, &[mode, low(self.offset)]);
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(&extra);
    }
}

/// Whether a file that begins like this gets smaller enough to be worth the work.
pub(super) fn shrinks(beginning: &[u8]) -> bool {
    let sample = &beginning[..beginning.len().min(SAMPLE_BYTES)];
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(sample).and_then(|()| encoder.finish()).is_ok_and(|packed| packed.len() < sample.len() / 10 * 9)
}

/// Time and date in the old format: two seconds exact, from 1980 to 2107, here always UTC.
fn dos_time(seconds: i64) -> (u16, u16) {
    let first = (0, (1 << 5) | 1);
    let Ok(at) = jiff::Timestamp::from_second(seconds) else { return first };
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    match u16::try_from(at.year() - 1980) {
        Ok(year @ 0..=127) => {
            let number = |n: i8| u16::from(n.unsigned_abs());
            let time = (number(at.hour()) << 11) | (number(at.minute()) << 5) | (number(at.second()) / 2);
            (time, (year << 9) | (number(at.month()) << 5) | number(at.day()))
        }
        _ => first,
    }
}

fn low(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn put_16(out: &mut Vec<u8>, values: &[u16]) {
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

fn put(out: &mut Vec<u8>, values: &[u32]) {
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

fn put_64(out: &mut Vec<u8>, values: &[u64]) {
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_time_is_of_its_range() {
        assert_eq!(dos_time(0), (0, 33));
        assert_eq!(dos_time(i64::MAX), (0, 33));
        // 2026-11-22 10:30:00
        assert_eq!(dos_time(1_795_343_400), ((10 << 11) | (30 << 5), (46 << 9) | (11 << 5) | 22));
    }

    #[test]
    fn text_shrinks_and_noise_does_not() {
        assert!(shrinks(&b"the same again and again ".repeat(100)));
        let noise: Vec<u8> = (0..4096u32).flat_map(|n| ferry_protocol::ChunkId::of(&n.to_le_bytes()).as_bytes().to_vec()).collect();
        assert!(!shrinks(&noise) && !shrinks(b""));
    }

    #[test]
    fn a_file_that_is_not_what_was_promised_is_an_error() {
        let mut zip = Zip::default();
        zip.begin("a", 0, 3, false);
        zip.write(b"ab").unwrap();
        assert!(zip.end().is_err());
        assert!(zip.write(b"c").is_err(), "nothing is open");
    }

    /// What a reader of 64 bits finds where 32 are not enough, without writing that much.
    #[test]
    fn what_is_large_is_described_in_64_bits() {
        let mut zip = Zip::default();
        let head = zip.begin("big", 0, MAX_32 + 5, false);
        assert_eq!((&head[4..6], &head[18..26]), (&[45, 0][..], &[0xff; 8][..]));
        let record = Record { size_bytes: MAX_32 + 5, packed_bytes: MAX_32 + 5, is_large: true, ..Record::at(MAX_32 + 9, 0) };
        let mut out = Vec::new();
        record.central(&mut out);
        assert_eq!((&out[20..28], &out[42..46]), (&[0xff; 8][..], &[0xff; 4][..]));
        let mut expected = Vec::new();
        put_16(&mut expected, &[1, 24]);
        put_64(&mut expected, &[MAX_32 + 5, MAX_32 + 5, MAX_32 + 9]);
        assert!(out.ends_with(&expected));
        let far = Zip { offset: MAX_32 + 100, ..Zip::default() };
        let end = far.finish();
        assert_eq!((end.len(), &end[..4]), (56 + 20 + 22, &END_64.to_le_bytes()[..]));
        assert_eq!(&end[48..56], &(MAX_32 + 100).to_le_bytes()[..]);
    }
}
