//! Two Syncthing devices on a LAN, as Debian ships it: local discovery only, no relays, no NAT, no reports, no upgrades.

use crate::pair::{LIMIT, Pair, Place, resident_bytes};
use anyhow::{Context, Result, ensure};
use ferry_tests::net::Host;
use serde_json::Value as Json;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const KEY: &str = "benchmark";

struct Side {
    host: Host,
    home: PathBuf,
    root: PathBuf,
    id: String,
    child: Option<Child>,
}

/// The pair.
pub struct Syncthing {
    name: String,
    a: Side,
    b: Side,
    place: Place,
}

impl Side {
    fn new(place: &Place, host: &Host) -> Result<Self> {
        let home = place.folder.path().join(format!("{}.home", host.name()));
        let root = place.folder.path().join(host.name());
        // Syncthing takes a folder for good only with this marker in it.
        fs::create_dir_all(root.join(".stfolder"))?;
        let output = host.command("syncthing").args(["generate", "--no-default-folder", "--home"]).arg(&home).output()?;
        ensure!(output.status.success(), "syncthing generate: {}", String::from_utf8_lossy(&output.stderr));
        let output = host.command("syncthing").arg("--device-id").arg("--home").arg(&home).output()?;
        let id = String::from_utf8(output.stdout)?.trim().to_string();
        ensure!(id.len() == 63, "no device id: {id}");
        Ok(Self { host: host.clone(), home, root, id, child: None })
    }

    /// Everything that is not written here is as Syncthing has it.
    fn configure(&self, other: &Self, delay_s: u32) -> Result<()> {
        let device = |side: &Self| format!("<device id=\"{}\" name=\"{}\"><address>dynamic</address></device>", side.id, side.host.name());
        let xml = format!(
            "<configuration version=\"35\">\n\
             <folder id=\"bench\" label=\"bench\" path=\"{}\" type=\"sendreceive\" fsWatcherEnabled=\"true\" fsWatcherDelayS=\"{delay_s}\">\
             <device id=\"{}\"></device><device id=\"{}\"></device><markerName>.stfolder</markerName></folder>\n\
             {}{}\n\
             <gui enabled=\"true\" tls=\"false\"><address>127.0.0.1:8384</address><apikey>{KEY}</apikey></gui>\n\
             <options><globalAnnounceEnabled>false</globalAnnounceEnabled><localAnnounceEnabled>true</localAnnounceEnabled>\
             <relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled><urAccepted>-1</urAccepted><startBrowser>false</startBrowser>\
             <autoUpgradeIntervalH>0</autoUpgradeIntervalH><crashReportingEnabled>false</crashReportingEnabled></options>\n\
             </configuration>\n",
            self.root.display(),
            self.id,
            other.id,
            device(self),
            device(other),
        );
        Ok(fs::write(self.home.join("config.xml"), xml)?)
    }

    fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.home.join("log"))?;
        let mut command = self.host.command("syncthing");
        command.args(["serve", "--no-browser", "--no-restart", "--no-upgrade", "--home"]).arg(&self.home).env("HOME", &self.home);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("syncthing")?);
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = self.ask("POST", "system/shutdown");
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(30) && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn ask(&self, method: &str, path: &str) -> Result<Json> {
        let header = format!("X-API-Key: {KEY}");
        let url = format!("http://127.0.0.1:8384/rest/{path}");
        let output = self.host.command("curl").args(["-sS", "--max-time", "30", "-X", method, "-H", &header, &url]).output()?;
        ensure!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn is_idle(&self) -> Result<bool> {
        let status = self.ask("GET", "db/status?folder=bench")?;
        Ok(status["state"] == "idle" && status["needTotalItems"] == 0)
    }
}

impl Syncthing {
    /// Starts both, connected and idle. `delay_s` is how long the watcher collects events (10 as it comes).
    pub fn start(dir: &Path, name: &str, delay_s: u32) -> Result<Self> {
        let place = Place::new(dir)?;
        let (mut a, mut b) = (Side::new(&place, &place.a)?, Side::new(&place, &place.b)?);
        a.configure(&b, delay_s)?;
        b.configure(&a, delay_s)?;
        a.start()?;
        b.start()?;
        let pair = Self { name: name.into(), a, b, place };
        pair.connected(Instant::now())?;
        Ok(pair)
    }

    fn connected(&self, start: Instant) -> Result<f64> {
        let is_there = || self.a.ask("GET", "system/connections").is_ok_and(|c| c["connections"][&self.b.id]["connected"] == true);
        while !is_there() {
            ensure!(start.elapsed() < Duration::from_secs(120), "they do not connect");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

impl Pair for Syncthing {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn roots(&self) -> (PathBuf, PathBuf) {
        (self.a.root.clone(), self.b.root.clone())
    }

    fn quiet(&self) -> Result<()> {
        let start = Instant::now();
        let mut idle = 0;
        while idle < 5 {
            ensure!(start.elapsed() < LIMIT, "{} is not idle", self.name);
            idle = if self.a.is_idle()? && self.b.is_idle()? { idle + 1 } else { 0 };
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn resident_bytes(&self) -> (u64, u64) {
        // What was started only watches over the process that works: all on the host count.
        let of = |side: &Side| {
            let output = std::process::Command::new("ip").args(["netns", "pids", side.host.namespace()]).output();
            let pids = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
            pids.split_whitespace().filter_map(|pid| pid.parse().ok()).map(resident_bytes).sum::<u64>()
        };
        (of(&self.a), of(&self.b))
    }

    fn reconnect(&mut self) -> Result<f64> {
        self.a.stop();
        self.b.stop();
        let start = Instant::now();
        self.a.start()?;
        self.b.start()?;
        self.connected(start)
    }

    fn latency_files(&self) -> usize {
        if self.name == "syncthing" { 12 } else { 50 }
    }
}

impl Drop for Syncthing {
    fn drop(&mut self) {
        self.a.stop();
        self.b.stop();
    }
}
