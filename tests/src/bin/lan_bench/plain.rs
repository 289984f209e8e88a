//! What the link and the disk can do: a file and a tar stream over TCP, made durable once; and rsync with a daemon on the receiver.

use crate::Options;
use crate::pair::{BIG_BYTES, Counting, Place, big_file, is_long, small_files};
use crate::table::Table;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One connection from the sender to the receiver.
fn connection(place: &Place) -> Result<(TcpStream, TcpStream)> {
    let address = (place.b.address(), 7000);
    let listener = place.b.inside(|| TcpListener::bind(address))?;
    let sender = place.a.inside(|| TcpStream::connect(address))?;
    Ok((sender, listener.accept()?.0))
}

/// Copies a file; seconds until it is durable.
fn file_over_tcp(place: &Place, from: &Path, to: &Path) -> Result<f64> {
    let (mut sender, mut receiver) = connection(place)?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let received = scope.spawn(move || -> Result<()> {
            let mut file = fs::File::create(to)?;
            std::io::copy(&mut receiver, &mut file)?;
            Ok(file.sync_all()?)
        });
        std::io::copy(&mut fs::File::open(from)?, &mut sender)?;
        drop(sender);
        received.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?
    })?;
    Ok(start.elapsed().as_secs_f64())
}

/// Copies a directory by tar; seconds until it is durable.
fn tar_over_tcp(place: &Place, from: &Path, to: &Path) -> Result<f64> {
    let (sender, receiver) = connection(place)?;
    fs::create_dir_all(to)?;
    let start = Instant::now();
    let mut unpack = Command::new("tar").args(["-xf", "-", "-C"]).arg(to).stdin(Stdio::from(OwnedFd::from(receiver))).spawn()?;
    let packed = Command::new("tar").args(["-cf", "-", "-C"]).arg(from).arg(".").stdout(Stdio::from(OwnedFd::from(sender))).status()?;
    ensure!(packed.success() && unpack.wait()?.success(), "tar");
    ensure!(Command::new("sync").arg("-f").arg(to).status()?.success(), "sync");
    Ok(start.elapsed().as_secs_f64())
}

/// The yardsticks.
pub fn copies(options: &Options, table: &mut Table) -> Result<()> {
    let place = Place::new(&options.dir)?;
    let path = |name: &str| place.folder.path().join(name);
    if options.wants("small") {
        small_files(&path("small"))?;
        let seconds = tar_over_tcp(&place, &path("small"), &path("unpacked"))?;
        ensure!(Counting::default().is_all(&path("unpacked")), "tar lost files");
        table.note("10,000 files of 4 KiB", "plain", seconds, None, "tar over TCP, one sync");
    }
    if ["big", "gigabit"].iter().any(|work| options.wants(work)) {
        big_file(&path("big"), 1, b"")?;
    }
    for (work, row) in [("big", "1 GiB file"), ("gigabit", "1 GiB at 1 Gbit/s")] {
        if options.wants(work) {
            if work == "gigabit" {
                place.a.limit(place.lan, 1000);
            }
            let seconds = file_over_tcp(&place, &path("big"), &path("copied"))?;
            table.note(row, "plain", seconds, None, "TCP, one fsync");
        }
    }
    Ok(())
}

/// An rsync daemon on the receiver; killed when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn daemon(place: &Place, root: &Path) -> Result<Daemon> {
    fs::create_dir_all(root)?;
    let config = place.folder.path().join("rsyncd.conf");
    let text = format!("use chroot = no\nuid = 0\ngid = 0\n[bench]\npath = {}\nread only = no\n", root.display());
    fs::write(&config, text)?;
    let mut command = place.b.command("rsync");
    command.args(["--daemon", "--no-detach", "--port", "8730", "--config"]).arg(&config).stdin(Stdio::null());
    let child = Daemon(command.spawn().context("rsync")?);
    let start = Instant::now();
    while place.a.inside(|| TcpStream::connect((place.b.address(), 8730))).is_err() {
        ensure!(start.elapsed() < Duration::from_secs(20), "rsync does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}

/// rsync over its own protocol, made durable once.
pub fn rsync(options: &Options, table: &mut Table) -> Result<()> {
    let place = Place::new(&options.dir)?;
    let (from, to) = (place.folder.path().join("from"), place.folder.path().join("to"));
    fs::create_dir_all(&from)?;
    let _daemon = daemon(&place, &to)?;
    let run = |row: &str, table: &mut Table| -> Result<()> {
        let before = place.traffic();
        let start = Instant::now();
        let target = format!("rsync://{}:8730/bench/", place.b.address());
        let source = format!("{}/", from.display());
        let output = place.a.command("rsync").args(["-a", "--delete", &source, &target]).output()?;
        ensure!(output.status.success(), "rsync: {}", String::from_utf8_lossy(&output.stderr));
        ensure!(Command::new("sync").arg("-f").arg(&to).status()?.success(), "sync");
        let seconds = start.elapsed().as_secs_f64();
        let crossed = place.traffic().since(before);
        table.note(row, "rsync", seconds, Some((crossed.in_bytes, crossed.out_bytes)), "-a, one sync");
        Ok(())
    };
    if ["small", "rename"].iter().any(|work| options.wants(work)) {
        small_files(&from.join("small"))?;
        run("10,000 files of 4 KiB", table)?;
        fs::rename(from.join("small"), from.join("renamed"))?;
        run("rename of their directory", table)?;
        ensure!(Counting::default().is_all(&to.join("renamed")), "rsync lost files");
    }
    if ["big", "head"].iter().any(|work| options.wants(work)) {
        big_file(&from.join("big"), 1, b"")?;
        run("1 GiB file", table)?;
        big_file(&from.join("big"), 1, b"!")?;
        run("one byte put in at its head", table)?;
        ensure!(is_long(&to.join("big"), BIG_BYTES + 1), "rsync lost bytes");
    }
    if options.wants("gigabit") {
        place.a.limit(place.lan, 1000);
        big_file(&from.join("gigabit"), 2, b"")?;
        run("1 GiB at 1 Gbit/s", table)?;
    }
    Ok(())
}
