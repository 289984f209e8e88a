//! Each page as it is drawn, at 80 x 24 and 60 x 15, with realistic and with hostile values; and that no page is ever drawn out of its bounds.
//!
//! The pages rest in `snapshots`; `FERRY_UPDATE_PAGES=1 cargo test -p ferry-daemon --lib tui` draws them anew. Look at the difference before keeping it.

use super::model::tests::{play, step};
use super::model::{Key, Model, Question, Update};
use super::view::{Theme, draw};
use crate::problem::Problem;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, CellWidth};
use serde_json::{Value, json};
use std::path::PathBuf;

/// 2026-11-22 10:41:00 UTC.
const NOW_MS: i64 = 1_795_344_060_000;

fn page(model: &Model, width: u16, height: u16, colors: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, Theme { colors })).unwrap();
    terminal.backend().buffer().clone()
}

/// The text of a page, a line each; of a wide character the cells behind it are not counted.
fn text(buffer: &Buffer) -> String {
    let area = *buffer.area();
    let mut out = String::new();
    for y in area.top()..area.bottom() {
        let (mut line, mut x) = (String::new(), area.left());
        while x < area.right() {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += symbol.cell_width().max(1);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn folder(id: u8, name: &str, path: &str, rest: Value) -> Value {
    let mut folder = json!({
        "id": format!("{id:032x}"), "name": name, "path": path, "state": "up_to_date", "state_reason": null, "state_since_ms": NOW_MS - 12_000,
        "files": 41_203, "bytes": 19_541_221_376u64, "pending": {"upload": 0, "download": 0, "delete": 0},
        "pending_bytes": {"upload": 0, "download": 0}, "rates": {"up_bytes_per_s": 0, "down_bytes_per_s": 0}, "blocked": 0, "held": null,
        "last_sync_ms": NOW_MS - 12_000, "issues": [],
    });
    for (key, value) in rest.as_object().unwrap() {
        folder[key] = value.clone();
    }
    folder
}

fn status(moved: u64) -> Value {
    let photos = json!({
        "state": "syncing", "files": 1020, "bytes": 112_000_000_000u64, "pending": {"upload": 0, "download": 214, "delete": 3},
        "pending_bytes": {"upload": 0, "download": 3_294_000_000u64}, "rates": {"up_bytes_per_s": 0, "down_bytes_per_s": 6_100_000},
        "state_reason": "files are on their way",
    });
    json!({
        "type": "status", "state": "syncing", "device": {"id": "0a", "name": "thinkpad"},
        "account": {"user": "ana@example.org", "relay": "https://files.example.org"},
        "relay": {"state": "connected", "message": null}, "lan": {"enabled": true, "message": null}, "peers": [{}, {}],
        "folders": [
            folder(1, "Ferry", "/home/ana/Ferry", json!({})),
            folder(2, "Photos", "/data/photos", photos),
            folder(3, "work", "/home/ana/work", json!({"state": "paused", "state_reason": "until 18:00", "files": 310, "bytes": 2_100_000_000u64})),
            folder(4, "Scans", "/home/ana/Scans", json!({"state": "held", "held": {"count": 1200, "total": 1500, "made_here": true}})),
        ],
        "transfer": {"lan_in_bytes": 4_400_000_000u64 + moved * 6, "lan_out_bytes": 20_000_000, "relay_in_bytes": 400_000_000 + moved, "relay_out_bytes": 290_000_000u64},
        "issues": {"conflicts": 1, "errors": 2},
    })
}

/// A device at work.
fn realistic() -> Model {
    let mut model = Model::new(NOW_MS - 20_000, TimeZone::UTC, "/home/ana".into());
    let event = |id: u64, ago_ms: i64, rest: Value| {
        let mut event = json!({"id": id, "ts_ms": NOW_MS - ago_ms, "folder": "Photos"});
        rest.as_object().unwrap().iter().for_each(|(key, value)| event[key] = value.clone());
        event
    };
    let past = [
        event(9908, 86_400_000, json!({"type": "daemon_started", "folder": null, "version": "0.1.0"})),
        event(9909, 61_000, json!({"type": "moved", "path": "raw/2026/IMG_2229.dng", "from": "raw/IMG_2229.dng", "origin": "elsewhere"})),
        event(
            9910,
            60_000,
            json!({"type": "conflict", "path": "plan.odt", "copy": "plan (conflicted copy, LAPTOP, 2026-11-22 10-30).odt"}),
        ),
        event(
            9911,
            31_000,
            json!({"type": "issue", "path": "raw/IMG_2231.dng", "code": "permission_denied", "message": "permission denied"}),
        ),
    ];
    model.apply(Update::Connected(json!({"type": "activity", "events": past, "newest": 9911})));
    let mut moved = 0;
    for second in 0..20u64 {
        moved += 100_000 * (second % 7) * (second % 4);
        model.tick(NOW_MS - 20_000 + i64::try_from(second).unwrap() * 1000);
        model.apply(Update::Answer(Question::Status, Ok(status(moved))));
    }
    model.tick(NOW_MS - 1000);
    let transfers = |step: u64| {
        let transfer = |path: &str, direction: &str, via: Value, total: u64, done: u64, lan: u64| json!({"folder": "Photos", "folder_id": "02", "path": path, "direction": direction, "via": via, "total_bytes": total, "done_bytes": done, "lan_bytes": lan});
        json!({"type": "transfers", "transfers": [
            transfer("raw/IMG_2230.dng", "download", "lan".into(), 31_457_280, 12_000_000 + step * 6_000_000, 12_000_000 + step * 6_000_000),
            transfer("film/2026/holiday/a day at the sea, uncut.mov", "download", "relay".into(), 4_000_000_000, 900_000_000 + step * 1_100_000, 225_000_000),
            transfer("notes.txt", "upload", Value::Null, 4096, 0, 0),
        ]})
    };
    model.apply(Update::Answer(Question::Transfers, Ok(transfers(0))));
    model.tick(NOW_MS);
    model.apply(Update::Answer(Question::Transfers, Ok(transfers(1))));
    model.apply(Update::Answer(Question::Status, Ok(status(moved + 900_000))));
    model.apply(Update::Answer(Question::Peers, Ok(json!({"type": "peers", "peers": [
        {"id": "b1", "name": "desktop", "state": "connected", "address": "192.168.1.20:8471", "found": ["mdns", "relay"], "rtt_ms": 0.42,
            "in_bytes_per_s": 6_000_000, "out_bytes_per_s": 0},
        {"id": "b2", "name": "nas", "state": "connected", "address": "10.0.4.2:8471", "found": ["static"], "rtt_ms": 3.1, "in_bytes_per_s": 0, "out_bytes_per_s": 0},
        {"id": "b3", "name": "tv", "state": "unreachable", "address": "10.0.0.2:7", "found": ["relay"], "rtt_ms": null, "reason": "10.0.0.2:7: no answer",
            "in_bytes_per_s": 0, "out_bytes_per_s": 0},
    ]}))));
    model.apply(Update::Answer(Question::Conflicts, Ok(json!({"type": "conflicts", "conflicts": [
        {"id": "k1", "folder": "Ferry", "path": "plan.odt", "copy": "plan (conflicted copy, LAPTOP, 2026-11-22 10-30).odt", "device": "LAPTOP",
            "wall_ms": NOW_MS - 660_000, "size": 84_213, "copy_is_local": false},
    ]}))));
    model.apply(Update::Answer(Question::Issues, Ok(json!({"type": "issues", "issues": [
        {"folder": "Photos", "path": "raw/IMG_2231.dng", "code": "permission_denied", "message": "permission denied", "hint": "fix the mode of the file",
            "since_ms": NOW_MS - 31_000},
        {"folder": "Photos", "path": "", "code": "disk_low", "message": "the disk is almost full", "hint": "make room; syncing goes on by itself", "since_ms": NOW_MS},
    ]}))));
    let done = json!({"type": "file_downloaded", "path": "raw/IMG_2230.dng", "bytes": 31_457_280, "via": "lan", "peer": "desktop"});
    model.apply(Update::Event(event(9912, 0, done)));
    model
}

/// Names and messages that would do harm as they are: control characters, text from right to left, wide, joined and combining ones, endless ones.
fn hostile() -> Model {
    let name = "\x1b[2J\x1b]0;owned\x07\r\n\t\u{202e}gpj.exe";
    let wide = "日本語の写真/家族\u{200b}👩\u{200d}👩\u{200d}👧/é\u{301}\u{301}\u{301}ﾊﾟ";
    let long = "x".repeat(5000);
    let mut model = Model::new(NOW_MS, TimeZone::UTC, String::new());
    let event =
        |id: u64, path: &str| json!({"id": id, "ts_ms": NOW_MS, "type": "file_uploaded", "folder": name, "path": path, "bytes": u64::MAX});
    model.apply(Update::Connected(
        json!({"events": [event(1, name), event(2, wide), event(3, &long), {"type": name, "ts_ms": i64::MAX}], "newest": 3}),
    ));
    let rest = |state: &str| {
        json!({"state": state, "state_reason": name, "files": u64::MAX, "bytes": u64::MAX, "last_sync_ms": i64::MIN,
        "pending": {"upload": u64::MAX, "download": u64::MAX, "delete": u64::MAX}, "pending_bytes": {"upload": u64::MAX, "download": u64::MAX},
        "rates": {"up_bytes_per_s": 1, "down_bytes_per_s": u64::MAX}})
    };
    let mut document = json!({
        "state": "error", "device": {"name": name}, "account": {"user": wide, "relay": long}, "relay": {"state": "offline", "message": name},
        "lan": {"enabled": false, "message": long}, "peers": [],
        "folders": [folder(1, name, name, rest("error")), folder(2, wide, wide, rest("syncing")), folder(3, &long, &long, rest("up_to_date")), 7, {}],
        "transfer": {"lan_in_bytes": u64::MAX, "lan_out_bytes": u64::MAX, "relay_in_bytes": u64::MAX, "relay_out_bytes": 1},
        "issues": {"conflicts": u64::MAX / 4, "errors": u64::MAX / 4},
    });
    model.apply(Update::Answer(Question::Status, Ok(document.clone())));
    model.tick(NOW_MS + 1000);
    document["transfer"] = json!({});
    model.apply(Update::Answer(Question::Status, Ok(document)));
    let peer = |id: &str, name: &str| json!({"id": id, "name": name, "state": name, "address": name, "found": [name, "mdns"], "reason": name, "rtt_ms": 1e300});
    model.apply(Update::Answer(Question::Peers, Ok(json!({"peers": [peer("1", name), peer("2", wide), peer("3", &long)]}))));
    let transfer =
        |path: &str| json!({"folder": name, "path": path, "direction": name, "via": name, "total_bytes": 1, "done_bytes": u64::MAX});
    model.apply(Update::Answer(Question::Transfers, Ok(json!({"transfers": [transfer(name), transfer(wide), transfer(&long)]}))));
    let conflict =
        |path: &str| json!({"id": path, "folder": path, "path": path, "copy": path, "device": path, "wall_ms": i64::MIN, "size": u64::MAX});
    model.apply(Update::Answer(Question::Conflicts, Ok(json!({"conflicts": [conflict(name), conflict(wide)]}))));
    let issue = |path: &str| json!({"folder": path, "path": path, "code": path, "message": path, "hint": path, "since_ms": i64::MAX});
    model.apply(Update::Answer(Question::Issues, Ok(json!({"issues": [issue(name), issue(&long)]}))));
    model
}

/// Compares a page with the one that was kept.
fn compare(name: &str, model: &Model) {
    for (width, height) in [(80, 24), (60, 15)] {
        let buffer = page(model, width, height, true);
        let drawn = text(&buffer);
        check(&buffer);
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/tui/snapshots/{name}-{width}x{height}.txt"));
        if std::env::var_os("FERRY_UPDATE_PAGES").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &drawn).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == drawn, "{name} at {width} x {height} is drawn otherwise than it was kept:\n{kept}\nnow:\n{drawn}");
        assert_eq!(text(&page(model, width, height, false)), drawn, "without colours the words are the same");
    }
}

/// Each cell holds one piece of text and nothing that a terminal obeys (W1).
fn check(buffer: &Buffer) {
    let area = *buffer.area();
    for y in area.top()..area.bottom() {
        for x in area.left()..area.right() {
            let symbol = buffer[(x, y)].symbol();
            let harmless =
                !symbol.chars().any(|c| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'));
            assert!(harmless, "{symbol:?} at {x}, {y}");
            assert!(x + symbol.cell_width() <= area.right(), "{symbol:?} at {x}, {y} sticks out");
        }
    }
}

const PAGES: [(&str, char); 5] = [("overview", '1'), ("transfers", '2'), ("folders", '3'), ("issues", '4'), ("activity", '5')];

#[test]
fn each_page_is_drawn_as_it_was() {
    let mut model = realistic();
    for (name, key) in PAGES {
        model.key(Key::Char(key));
        compare(name, &model);
    }
}

#[test]
fn hostile_values_are_drawn_as_text() {
    let mut model = hostile();
    for (name, key) in PAGES {
        model.key(Key::Char(key));
        compare(&format!("hostile-{name}"), &model);
    }
}

#[test]
fn what_stands_before_a_page_is_drawn_as_it_was() {
    let mut model = realistic();
    model.key(Key::Char('?'));
    compare("help", &model);
    model.key(Key::Escape);
    model.key(Key::Char('4'));
    model.key(Key::Enter);
    compare("conflict", &model);
    model.key(Key::Escape);
    model.key(Key::Char('m'));
    compare("question", &model);
    model.key(Key::Char('n'));
    compare("answered", &model);
    let mut model = hostile();
    model.key(Key::Char('3'));
    model.key(Key::Enter);
    compare("hostile-folder", &model);
}

#[test]
fn a_daemon_that_is_gone_an_empty_one_and_a_filter_are_drawn_as_they_were() {
    let mut model = realistic();
    model.apply(Update::Lost(Problem::no_daemon()));
    compare("gone", &model);
    let mut model = realistic();
    model.key(Key::Char('5'));
    "/raw".chars().for_each(|c| {
        model.key(Key::Char(c));
    });
    compare("filter", &model);
    let mut model = Model::new(NOW_MS, TimeZone::UTC, String::new());
    compare("asking", &model);
    model.apply(Update::Connected(json!({})));
    model
        .apply(Update::Answer(Question::Status, Ok(json!({"state": "up_to_date", "device": {"name": "new"}, "relay": {"state": "none"}}))));
    compare("empty", &model);
}

#[test]
fn without_colours_none_are_used() {
    let mut model = realistic();
    for (_, key) in PAGES {
        model.key(Key::Char(key));
        let buffer = page(&model, 80, 24, false);
        assert!(buffer.content().iter().all(|cell| cell.fg == ratatui::style::Color::Reset && cell.bg == ratatui::style::Color::Reset));
        let with = page(&model, 80, 24, true);
        assert!(with.content().iter().all(|cell| cell.bg == ratatui::style::Color::Reset), "the background is the terminal's");
    }
}

#[test]
fn a_window_that_is_too_small_is_said() {
    let model = realistic();
    assert!(text(&page(&model, 59, 20, true)).contains("too small"));
    assert!(text(&page(&model, 80, 14, true)).contains("too small"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn any_model_is_drawn_at_any_size(steps in proptest::collection::vec(step(), 0..40), width in 1u16..140, height in 1u16..50) {
        let mut model = realistic();
        for step in steps {
            play(&mut model, step);
            check(&page(&model, width, height, true));
        }
    }
}
