//! Small pictures, previews and documents over the real router: what is made, for whom, and what is refused.

use super::content_tests::*;
use crate::config::Config;
use crate::store::testing::{Db, on_each_store};
use crate::{App, http};
use axum::http::Method;
use image::{DynamicImage, ImageFormat, RgbImage};
use serde_json::json;
use std::io::Cursor;

fn picture(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let pixels = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 9]));
    DynamicImage::ImageRgb8(pixels).write_to(&mut out, format).unwrap();
    out.into_inner()
}

fn size_of(answer: &Answer) -> (u32, u32) {
    let picture = image::load_from_memory(&answer.body).unwrap();
    (picture.width(), picture.height())
}

on_each_store!(a_picture_is_seen_small_by_whoever_may_have_it);

async fn a_picture_is_seen_small_by_whoever_may_have_it(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let file = world.upload(&alice, "photo.jpg", &picture(ImageFormat::Jpeg, 1500, 750)).await;
    let path = format!("/api/v1/thumbnails/{file}");
    let small = world.get(&alice, &format!("{path}?s=200")).await;
    assert_eq!((small.status, size_of(&small)), (200, (256, 128)));
    for (name, value) in [
        ("content-type", "image/jpeg"),
        ("cache-control", "private, no-cache"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox; default-src 'none'"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(small.headers[name], value, "{name}");
    }
    assert_eq!(size_of(&world.get(&alice, &format!("{path}?s=9999")).await), (1024, 512));
    // Kept, and the same bytes again.
    assert_eq!(world.get(&alice, &path).await.body, small.body);
    let kept = std::fs::read_dir(world._dir.as_ref().unwrap().path().join("thumbnails")).unwrap().count();
    assert_eq!(kept, 2);
    let etag = small.headers["etag"].to_str().unwrap().to_owned();
    let again = world.call(&alice, Method::GET, &path, &[("if-none-match", &etag)], "").await;
    assert_eq!((again.status, again.body.len(), again.headers["etag"].to_str().unwrap()), (304, 0, &*etag));
    // What is new has another name; the older version is still to be seen.
    world.upload(&alice, "photo.jpg", &picture(ImageFormat::Png, 30, 60)).await;
    let now = world.get(&alice, &path).await;
    assert_eq!(size_of(&now), (30, 60));
    assert_ne!(now.headers["etag"].to_str().unwrap(), etag);
    assert_eq!(world.get(&alice, &format!("{path}?v=1")).await.body, small.body);
    // For nobody else, whatever the cache holds; then for a guest, and no longer than the share lasts.
    assert_eq!(world.get(&mal, &path).await.status, 404);
    let invited = json!({"file_id": file, "email": "u2@example.org", "permission": "read"});
    let share = world.json(&alice, Method::POST, "/api/v1/shares", invited).await.text("share_id");
    // It is taken when its receiver looks.
    assert_eq!(world.get(&mal, "/api/v1/shares?with=me").await.status, 200);
    let seen = world.get(&mal, &path).await;
    assert_eq!((seen.status, &seen.body), (200, &now.body));
    assert_eq!(world.get(&mal, &format!("{path}?v=1")).await.status, 404);
    assert!(world.call(&alice, Method::DELETE, &format!("/api/v1/shares/{share}"), &[], "").await.status < 300);
    let etag = seen.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(world.call(&mal, Method::GET, &path, &[("if-none-match", &etag)], "").await.status, 404);
}

on_each_store!(what_is_no_picture_is_refused_with_a_reason);

/// R48: whatever stands in the file, the relay refuses it by its bytes or its header, says so, and remembers it.
async fn what_is_no_picture_is_refused_with_a_reason(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    let mut bomb = picture(ImageFormat::Png, 1, 1);
    bomb[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    let mut cut = picture(ImageFormat::Png, 400, 400);
    cut.truncate(200);
    let cases: [(&str, &[u8], &str); 6] = [
        ("bomb.png", &bomb, "too many pixels"),
        ("cut.png", &cut, "damaged"),
        ("svg.png", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://127.0.0.1:1/x'/></svg>", "damaged"),
        ("push.jpg", b"push graphic-context\nviewbox 0 0 1 1\nfill 'url(http://127.0.0.1:1/x)'", "damaged"),
        ("drawing.svg", b"<svg/>", "JPEG, PNG, GIF and WebP"),
        ("text.txt", b"text", "JPEG, PNG, GIF and WebP"),
    ];
    for (name, bytes, why) in cases {
        let file = world.upload(&alice, name, bytes).await;
        for _ in 0..2 {
            let answer = world.get(&alice, &format!("/api/v1/thumbnails/{file}")).await;
            assert_eq!((answer.status, answer.text("code")), (422, "no_thumbnail".into()), "{name}");
            assert!(answer.text("detail").contains(why), "{name}: {}", answer.text("detail"));
        }
    }
}

on_each_store!(a_relay_that_makes_none_says_so);

async fn a_relay_that_makes_none_says_so(kind: Db) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config { data: dir.path().into(), database: kind.config(dir.path()), ..Config::default() };
    config.thumbnails.memory_bytes = 0;
    let app = http::AppState::new(App::open(&config).await.unwrap());
    let (router, _) = http::router(&app, &app.roles);
    let world = World { app, router, _dir: Some(dir) };
    let alice = world.user(1).await;
    let file = world.upload(&alice, "a.png", &picture(ImageFormat::Png, 2, 2)).await;
    let answer = world.get(&alice, &format!("/api/v1/thumbnails/{file}")).await;
    assert_eq!((answer.status, answer.text("detail")), (422, "This relay makes no small pictures.".into()));
}

on_each_store!(markdown_comes_as_elements_and_a_document_for_its_viewer);

async fn markdown_comes_as_elements_and_a_document_for_its_viewer(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let file = world.upload(&alice, "README.md", b"# Hi\n\n<script>alert(1)</script>\n").await;
    let path = format!("/api/v1/previews/{file}");
    let seen = world.get(&alice, &path).await;
    assert_eq!(
        seen.json(),
        json!({"kind": "markdown", "is_cut": false, "nodes": [
            {"tag": "h1", "children": ["Hi"]},
            {"tag": "pre", "children": ["<script>alert(1)</script>\n"]},
        ]})
    );
    let etag = seen.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(world.call(&alice, Method::GET, &path, &[("if-none-match", &etag)], "").await.status, 304);
    assert_eq!(world.get(&mal, &path).await.status, 404);
    let long = world.upload(&alice, "long.md", "a\n\n".repeat(300_000).as_bytes()).await;
    assert_eq!(world.get(&alice, &format!("/api/v1/previews/{long}")).await.json()["is_cut"], true);
    // A document may be shown in a frame of ours; a page may not, whatever is asked.
    let pdf = world.upload(&alice, "a.pdf", b"%PDF-1.4").await;
    let page = world.upload(&alice, "a.html", b"<script>alert(1)</script>").await;
    let framed = world.get(&alice, &format!("/download/{pdf}?inline=1")).await;
    assert!(framed.headers["content-disposition"].to_str().unwrap().starts_with("inline"));
    assert_eq!(framed.headers["x-frame-options"], "SAMEORIGIN");
    assert_eq!(framed.headers["content-type"], "application/pdf");
    assert!(framed.headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'self'"));
    for path in [format!("/download/{pdf}"), format!("/download/{page}?inline=1")] {
        let saved = world.get(&alice, &path).await;
        assert!(saved.headers["content-disposition"].to_str().unwrap().starts_with("attachment"), "{path}");
        assert_eq!(saved.headers["content-security-policy"], "sandbox; default-src 'none'", "{path}");
        assert_eq!(saved.headers["x-frame-options"], "DENY", "{path}");
    }
}
