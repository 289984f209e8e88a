//! `ferry history`, `ferry diff`, `ferry restore`: the versions of one file.

use super::client::{encode, encode_path};
use super::rewind::{quoted, time};
use super::status::{clock, plural};
use super::{Context, absolute, tilde};
use crate::folder::path_text;
use crate::problem::{Outcome, Problem, exit};
use crate::quantity;
use crate::ui::table::Table;
use crate::ui::{Style, Ui};
use clap::Args;
use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// `ferry history`
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// A file in a synced folder; it may be gone
    pub path: PathBuf,
    /// At most so many versions, the newest first
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// What was deleted here, although there is a file of this name again
    #[arg(long)]
    pub deleted: bool,
    /// Call this version something, so that it is kept whatever the folder's rule says
    #[arg(long, value_name = "VERSION", requires = "naming")]
    pub version: Option<String>,
    /// What to call it
    #[arg(long, value_name = "TEXT", requires = "version", group = "naming")]
    pub label: Option<String>,
    /// Take its label away
    #[arg(long, requires = "version", group = "naming")]
    pub no_label: bool,
}

/// `ferry diff`
#[derive(Debug, Clone, Args)]
pub struct DiffArgs {
    /// A text file in a synced folder
    pub path: PathBuf,
    /// The older version: its number or id [default: the last one that is not what the file holds now]
    pub from: Option<String>,
    /// The newer version [default: the file as it is on this device]
    pub to: Option<String>,
}

/// `ferry restore`
#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    /// A file in a synced folder; it may be gone
    pub path: PathBuf,
    /// This version: its number or id
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// What it was at this time: RFC 3339, a local date and time, or so long ago (2h)
    #[arg(long, value_name = "TIME", conflicts_with = "version")]
    pub at: Option<String>,
    /// Save it here on this device instead, and leave the file as it is
    #[arg(long, value_name = "COPY")]
    pub to: Option<PathBuf>,
    /// What was deleted here, although there is a file of this name again
    #[arg(long)]
    pub deleted: bool,
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn number(value: &Value) -> u64 {
    value["version_number"].as_u64().unwrap_or(0)
}

fn time_ms(value: &Value, name: &str) -> Option<i64> {
    text(value, name).parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

async fn ask(context: &Context, path: &Path, limit: Option<u32>, deleted: bool) -> Outcome<Value> {
    let limit = limit.map(|limit| format!("&limit={limit}")).unwrap_or_default();
    context.client.get(&format!("/relay/history?path={}&deleted={deleted}{limit}", encode_path(&absolute(path)?))).await
}

fn versions(history: &Value) -> impl Iterator<Item = &Value> {
    history["versions"].as_array().into_iter().flatten()
}

/// The version that a person means: `3`, `v3`, or an id.
fn find<'a>(history: &'a Value, wanted: &str) -> Outcome<&'a Value> {
    let plain = wanted.strip_prefix(['v', 'V']).unwrap_or(wanted);
    let is_it = |version: &&Value| match plain.parse::<u64>() {
        Ok(wanted) => number(version) == wanted,
        Err(_) => text(version, "version_id").replace('-', "").eq_ignore_ascii_case(&wanted.replace('-', "")),
    };
    versions(history).find(is_it).ok_or_else(|| {
        let (shown, path) = (ferry_protocol::name::display_bytes(wanted.as_bytes()), text(history, "path"));
        let list = format!("list them with: ferry history {}", quoted(path));
        Problem::not_found("version_not_found", format!("{} has no version '{shown}'", tilde(path))).hint(list)
    })
}

/// Lists versions, or gives one a label.
pub async fn history(context: &Context, args: HistoryArgs) -> Outcome<u8> {
    let ui = &context.ui;
    if let Some(wanted) = &args.version {
        return label(context, &args, wanted).await;
    }
    let answer = ask(context, &args.path, Some(args.limit), args.deleted).await?;
    if ui.json {
        ui.document(&answer);
        return Ok(exit::OK);
    }
    let mut table = Table::new(&["VERSION", "WHEN", "WHO", "DEVICE", "SIZE", "COST", ""]).right(0).right(4).right(5);
    for version in versions(&answer) {
        table.row(row(version, answer["is_deleted"] == true));
    }
    table.print(ui, "the relay keeps no version of this");
    if !ui.plain {
        let path = quoted(&args.path.to_string_lossy());
        for line in after(&answer, &path) {
            ui.message(&line);
        }
    }
    Ok(exit::OK)
}

fn row(version: &Value, is_deleted: bool) -> Vec<String> {
    let who = if version["by_me"] == true { "you" } else { version["user_email"].as_str().unwrap_or("?") };
    let cost = version["cost_bytes"].as_u64().map_or_else(|| "?".to_owned(), quantity::bytes);
    let mut notes = Vec::new();
    if version["is_current"] == true {
        notes.push("current".to_owned());
    }
    if let Some(older) = version["same_as"].as_u64() {
        notes.push(format!("same as {older}"));
    }
    if let Some(label) = version["label"].as_str() {
        notes.push(format!("\"{}\"", ferry_protocol::name::display_bytes(label.as_bytes())));
    }
    if is_deleted && notes.is_empty() {
        notes.push("in the trash".to_owned());
    }
    vec![
        number(version).to_string(),
        time_ms(version, "created_at").map(clock).unwrap_or_default(),
        ferry_protocol::name::display_bytes(who.as_bytes()),
        ferry_protocol::name::display_bytes(text(version, "device_name").as_bytes()),
        quantity::bytes(version["file_size"].as_u64().unwrap_or(0)),
        cost,
        notes.join(", "),
    ]
}

/// What to do next.
fn after(answer: &Value, path: &str) -> Vec<String> {
    let mut lines = Vec::new();
    if answer["has_more"] == true {
        lines.push(format!("{} in all; more with --limit", plural(answer["total"].as_u64().unwrap_or(0), "version", "versions")));
    }
    if answer["is_deleted"] == true {
        lines.push(format!("It was deleted. Bring it back with: ferry restore {path}"));
    } else if answer["total"].as_u64().unwrap_or(0) > 1 {
        lines.push(format!("Compare: ferry diff {path} VERSION    Bring back: ferry restore {path} --version VERSION"));
    }
    match answer["deleted_besides"].as_u64().unwrap_or(0) {
        0 => {}
        1 => lines.push("Another file of this name lies in the trash: --deleted".to_owned()),
        more => lines.push(format!("{more} more files of this name lie in the trash; the newest with --deleted")),
    }
    lines
}

async fn label(context: &Context, args: &HistoryArgs, wanted: &str) -> Outcome<u8> {
    let history = ask(context, &args.path, None, args.deleted).await?;
    let version = find(&history, wanted)?;
    let request = json!({"file_id": history["file_id"], "version_id": version["version_id"], "label": args.label});
    let mut answer = context.client.post("/relay/versions/label", &request).await?;
    answer["version_number"] = number(version).into();
    if context.ui.json {
        context.ui.document(&answer);
    } else {
        let n = number(version);
        context.ui.done(&match answer["label"].as_str() {
            Some(label) => format!("Version {n} is \"{}\" and is kept", ferry_protocol::name::display_bytes(label.as_bytes())),
            None => format!("Version {n} has no label; it is kept as long as the folder's rule says"),
        });
    }
    Ok(exit::OK)
}

/// Shows what is different.
pub async fn diff(context: &Context, args: DiffArgs) -> Outcome<u8> {
    let plain = |version: Option<String>| version.map(|v| v.strip_prefix(['v', 'V']).map_or(v.clone(), str::to_owned));
    let mut request = json!({"from": plain(args.from), "to": plain(args.to)});
    request["path"] = path_text::serialize(&absolute(&args.path)?, serde_json::value::Serializer).unwrap_or_default();
    let answer = context.client.post("/relay/diff", &request).await?;
    if context.ui.json {
        context.ui.document(&answer);
        return Ok(exit::OK);
    }
    if answer["hunks"].as_array().is_none_or(Vec::is_empty) {
        context.ui.message(&format!("{} and {} are the same", side(&answer["from"]), side(&answer["to"])));
        return Ok(exit::OK);
    }
    context.ui.text(&unified(&context.ui, &answer));
    if answer["is_cut"] == true {
        context.ui.warning("there is more that is different than is shown here");
    }
    Ok(exit::OK)
}

fn side(version: &Value) -> String {
    let mut words = Vec::new();
    if version["version_number"].is_u64() {
        words.push(format!("version {}", number(version)));
    }
    if version["is_on_disk"] == true {
        words.push(if words.is_empty() { "the file on this device" } else { "on this device" }.to_owned());
    }
    words.extend(time_ms(version, "created_at").map(clock));
    words.extend(version["device_name"].as_str().map(|name| format!("by {}", ferry_protocol::name::display_bytes(name.as_bytes()))));
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

/// In the form that `patch` reads.
fn unified(ui: &Ui, answer: &Value) -> String {
    let name = ferry_protocol::name::display_bytes(text(answer, "path").as_bytes());
    let mut out = String::new();
    for (mark, which) in [("---", "from"), ("+++", "to")] {
        out.push_str(&ui.paint(Style::Bold, &format!("{mark} {name}\t{}", side(&answer[which]))));
        out.push('\n');
    }
    for hunk in answer["hunks"].as_array().into_iter().flatten() {
        let range = |start: &str, lines: &str| format!("{},{}", hunk[start].as_u64().unwrap_or(0), hunk[lines].as_u64().unwrap_or(0));
        let head = format!("@@ -{} +{} @@", range("old_start", "old_lines"), range("new_start", "new_lines"));
        out.push_str(&ui.paint(Style::Dim, &head));
        out.push('\n');
        for line in hunk["lines"].as_array().into_iter().flatten() {
            let (mark, style) = match text(line, "kind") {
                "added" => ('+', Some(Style::Good)),
                "removed" => ('-', Some(Style::Bad)),
                _ => (' ', None),
            };
            let shown = format!("{mark}{}", if ui.out_is_terminal { visible(text(line, "text")) } else { text(line, "text").to_owned() });
            out.push_str(&style.map_or(shown.clone(), |style| ui.paint(style, &shown)));
            out.push('\n');
            if line["is_cut"] == true {
                out.push_str("\\ No newline at end of file\n");
            }
        }
    }
    out
}

/// A line of a file as a terminal may show it: nothing in it moves the cursor or changes colours.
fn visible(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Brings a version back, or saves it somewhere.
pub async fn restore(context: &Context, args: RestoreArgs) -> Outcome<u8> {
    let history = ask(context, &args.path, None, args.deleted).await?;
    let chosen = chosen(&history, &args)?;
    if let Some(to) = &args.to {
        let newest = versions(&history).find(|version| version["is_current"] == true).or_else(|| versions(&history).next());
        let version = chosen.or(newest).ok_or_else(|| Problem::not_found("version_not_found", "the relay keeps no version of this"))?;
        return save(context, &history, version, to).await;
    }
    let shown = tilde(text(&history, "path"));
    let is_deleted = history["is_deleted"] == true;
    let mut request = json!({"file_id": history["file_id"], "space_id": history["space_id"]});
    let mut answer = Value::Null;
    if is_deleted {
        answer = context.client.post("/relay/versions/restore", &request).await?;
    } else if chosen.is_none() {
        let list = format!("choose one with --version: ferry history {}", quoted(&args.path.to_string_lossy()));
        return Err(Problem::usage(format!("{shown} is there; which version is to come back?")).hint(list));
    }
    let newest = versions(&history).next().map(number);
    if let Some(version) = chosen.filter(|version| !is_deleted || Some(number(version)) != newest) {
        request["version_id"] = version["version_id"].clone();
        answer = context.client.post("/relay/versions/restore", &request).await?;
    }
    let current = versions(&history).find(|version| version["is_current"] == true).map(number);
    let undo = current.map(|n| format!("ferry restore {} --version {n}", quoted(&args.path.to_string_lossy())));
    answer["version_number"] = chosen.map_or(json!(newest), |version| number(version).into());
    answer["from_trash"] = is_deleted.into();
    answer["undo"] = undo.clone().into();
    if context.ui.json {
        context.ui.document(&answer);
        return Ok(exit::OK);
    }
    let place = ferry_protocol::name::display_bytes(text(&answer, "file_path").as_bytes());
    let folder = text(&history, "folder");
    context.ui.done(&match (is_deleted, chosen) {
        (true, None) => format!("{folder}{place} is back from the trash; the devices follow"),
        (true, Some(version)) => format!("{folder}{place} is back from the trash as version {}; the devices follow", number(version)),
        (false, _) => {
            let version = chosen.map(number).unwrap_or_default();
            format!("{folder}{place} is what version {version} was, as a new version; the devices follow")
        }
    });
    match undo {
        Some(undo) => context.ui.line(&format!("  take this back with: {undo}")),
        None => context.ui.line("  take this back by deleting it again"),
    }
    Ok(exit::OK)
}

/// The version that the flags name; nothing when none does.
fn chosen<'a>(history: &'a Value, args: &RestoreArgs) -> Outcome<Option<&'a Value>> {
    if let Some(wanted) = &args.version {
        return find(history, wanted).map(Some);
    }
    let Some(at) = &args.at else { return Ok(None) };
    let at = time(at)?.as_millisecond();
    // Newest first: the first that was there by then.
    let found = versions(history).find(|version| time_ms(version, "created_at").is_some_and(|ms| ms <= at));
    found.map(Some).ok_or_else(|| {
        let path = text(history, "path");
        Problem::not_found("version_not_found", format!("the relay keeps no version of {} from then or before", tilde(path)))
            .hint(format!("list them with: ferry history {}", quoted(path)))
    })
}

/// Writes a version to a new file, whole and checked or not at all.
async fn save(context: &Context, history: &Value, version: &Value, to: &Path) -> Outcome<u8> {
    let mut place = absolute(to)?;
    if place.is_dir() {
        place.push(text(history, "file_name"));
    }
    let shown = crate::config::shown(&place);
    let taken = || {
        Problem::conflict("exists", format!("there is something at {} already; nothing is written over it", tilde(&shown)))
            .hint("choose another place with --to")
    };
    if place.symlink_metadata().is_ok() {
        return Err(taken());
    }
    let about = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::AlreadyExists => taken(),
        kind => Problem::from(std::io::Error::new(kind, format!("{} cannot be written: {e}", tilde(&shown)))),
    };
    let mut new = NewFile::beside(&place).map_err(about)?;
    let (mut hash, mut size) = (Sha256::new(), 0u64);
    let address =
        format!("/relay/versions/content?file_id={}&version_id={}", encode(text(history, "file_id")), encode(text(version, "version_id")));
    let sink = |bytes: &[u8]| {
        hash.update(bytes);
        size += bytes.len() as u64;
        new.file.write_all(bytes)
    };
    context.client.download(&address, sink).await?;
    if hex::encode(hash.finalize()) != text(version, "file_hash") || Some(size) != version["file_size"].as_u64() {
        return Err(Problem::temporary("wrong_bytes", "what came is not what the version holds; nothing was written").hint("try again"));
    }
    if let Some(ms) = time_ms(version, "modified_at").and_then(|ms| u64::try_from(ms).ok()) {
        // For people only: that a disk keeps no times is no reason to fail.
        let _ = new.file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
    }
    new.keep(&place).map_err(about)?;
    let answer = json!({"type": "version_saved", "path": shown, "version_number": number(version), "size": size});
    if context.ui.json {
        context.ui.document(&answer);
    } else {
        context.ui.done(&format!("version {} is in {} ({})", number(version), tilde(&shown), quantity::bytes(size)));
    }
    Ok(exit::OK)
}

/// A file that has no name until it is whole, where the disk can do that; else one that is removed again when it does not become whole.
struct NewFile {
    file: File,
    named: Option<PathBuf>,
}

impl NewFile {
    fn beside(place: &Path) -> std::io::Result<Self> {
        let dir = place.parent().unwrap_or(Path::new("/"));
        match rustix::fs::open(dir, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from_raw_mode(0o666)) {
            Ok(fd) => Ok(Self { file: fd.into(), named: None }),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::ACCESS) => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
            Err(_) => Ok(Self { file: File::create_new(place)?, named: Some(place.to_owned()) }),
        }
    }

    fn keep(mut self, place: &Path) -> std::io::Result<()> {
        self.file.sync_all()?;
        if self.named.take().is_none() {
            let fd = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            rustix::fs::linkat(CWD, fd, CWD, place, AtFlags::SYMLINK_FOLLOW)?;
        }
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(place) = self.named.take() {
            // It is a part of something: better nothing.
            let _ = std::fs::remove_file(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::Color;

    fn sample() -> Value {
        json!({"path": "/d/a.txt", "total": 3, "has_more": false, "is_deleted": false, "deleted_besides": 0, "versions": [
            {"version_number": 3, "version_id": "0a", "created_at": "2026-11-22T12:00:00Z", "is_current": true, "same_as": 1, "file_size": 4,
             "cost_bytes": 0, "device_name": "LAPTOP", "by_me": true},
            {"version_number": 2, "version_id": "0b", "created_at": "2026-11-22T11:00:00Z", "label": "sent", "file_size": 2000,
             "device_name": "web", "user_email": "ana@example.org"},
            {"version_number": 1, "version_id": "0c", "created_at": "2026-11-22T10:00:00Z", "file_size": 4, "cost_bytes": 0},
        ]})
    }

    #[test]
    fn a_version_is_named_by_number_or_id() {
        let history = sample();
        for (wanted, found) in [("2", 2), ("v3", 3), ("0c", 1), ("0-A", 3)] {
            assert_eq!(number(find(&history, wanted).unwrap()), found, "{wanted}");
        }
        assert_eq!(find(&history, "4").unwrap_err().exit_code, exit::NOT_FOUND);
    }

    #[test]
    fn a_time_chooses_what_was_there_by_then() {
        let args = |at: &str| RestoreArgs { path: "a".into(), version: None, at: Some(at.into()), to: None, deleted: false };
        let history = sample();
        assert_eq!(chosen(&history, &args("2026-11-22T11:30:00Z")).unwrap().map(number), Some(2));
        assert_eq!(chosen(&history, &args("2026-11-22T10:00:00Z")).unwrap().map(number), Some(1));
        assert_eq!(chosen(&history, &args("2026-11-22T09:59:59Z")).unwrap_err().code, "version_not_found");
        assert_eq!(chosen(&history, &RestoreArgs { at: None, ..args("") }).unwrap(), None);
    }

    #[test]
    fn rows_say_who_what_it_costs_and_what_is_special() {
        let history = sample();
        let rows: Vec<Vec<String>> = versions(&history).map(|version| row(version, false)).collect();
        assert_eq!((rows[0][2].as_str(), rows[0][6].as_str()), ("you", "current, same as 1"));
        assert_eq!((rows[1][2].as_str(), rows[1][5].as_str(), rows[1][6].as_str()), ("ana@example.org", "?", "\"sent\""));
        assert!(after(&history, "a.txt")[0].contains("ferry diff a.txt"));
        let gone = json!({"is_deleted": true, "deleted_besides": 2, "total": 1});
        assert_eq!(after(&gone, "'a b'").len(), 2);
    }

    #[test]
    fn differences_are_printed_as_patch_reads_them() {
        let ui = Ui::new(false, false, Color::Never, false, false, false);
        let answer = json!({
            "path": "/d/a.txt", "from": {"version_number": 1}, "to": {"is_on_disk": true},
            "hunks": [{"old_start": 1, "old_lines": 2, "new_start": 1, "new_lines": 2, "lines": [
                {"kind": "same", "text": "one"}, {"kind": "removed", "text": "two"}, {"kind": "added", "text": "zwei", "is_cut": true},
            ]}],
        });
        let wanted = "--- /d/a.txt\tversion 1\n+++ /d/a.txt\tthe file on this device\n@@ -1,2 +1,2 @@\n one\n-two\n+zwei\n\\ No newline at end of file\n";
        assert_eq!(unified(&ui, &answer), wanted);
        assert_eq!(visible("a\u{1b}[31mb\tc"), "a\u{fffd}[31mb\tc");
    }

    #[test]
    fn a_new_file_appears_whole_or_not_at_all_and_over_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("copy");
        let mut new = NewFile::beside(&place).unwrap();
        new.file.write_all(b"whole").unwrap();
        drop(new);
        assert!(!place.exists(), "given up");
        let mut new = NewFile::beside(&place).unwrap();
        new.file.write_all(b"whole").unwrap();
        new.keep(&place).unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), b"whole");
        let kept = NewFile::beside(&place).and_then(|mut new| new.file.write_all(b"other").and_then(|()| new.keep(&place)));
        assert_eq!(kept.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&place).unwrap(), b"whole");
        assert!(NewFile::beside(&dir.path().join("no/where")).is_err());
    }
}
