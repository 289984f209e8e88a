//! `ferry login` without a password: the relay's page asks a person who is logged in there (RFC 8628).

use super::Context;
use super::daemon::perform;
use crate::problem::{Outcome, Problem, exit};
use crate::supervisor;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// How much slower to ask when the relay says so, in seconds (RFC 8628, 3.5).
const SLOWER_S: u64 = 5;
/// Waits between two questions, in seconds, whatever a relay says.
const INTERVAL_MAX_S: u64 = 60;
/// How long a person is waited for, in seconds, whatever a relay says.
const WAIT_MAX_S: u64 = 3600;

/// Shows an address and a code, and waits until somebody has let this device in there. Answers as a login does.
pub async fn by_page(context: &Context, relay: &str, name: Option<&str>, no_browser: bool) -> Outcome<Value> {
    let request = json!({"relay": relay, "name": name});
    let begun = match context.client.post("/login/start", &request).await {
        Err(problem) if problem.code == "daemon_unreachable" => {
            let request = serde_json::from_value(request).map_err(|e| Problem::usage(e.to_string()))?;
            Box::pin(supervisor::begin_login(&context.paths, request)).await
        }
        answer => answer,
    }?;
    let text = |name: &str| begun[name].as_str().unwrap_or_default().to_owned();
    if let Some(warning) = begun["warning"].as_str() {
        context.ui.warning(warning);
    }
    let shown = show(context, &begun);
    if !no_browser && open_browser(&text("verification_uri_complete")) {
        context.ui.message("A browser opens with this page.");
    }
    let mut request = json!({"relay": relay, "device_code": text("device_code")});
    if let Some(name) = name {
        request["name"] = name.into();
    }
    let seconds = |name: &str, default: u64| begun[name].as_u64().unwrap_or(default);
    let deadline = Instant::now() + Duration::from_secs(seconds("expires_in", 600).min(WAIT_MAX_S));
    let answer = wait(context, request, deadline, seconds("interval", 5)).await;
    if shown && answer.is_ok() {
        context.ui.message("Approved.");
    }
    answer
}

/// Asks again and again until the answer is yes or no.
async fn wait(context: &Context, request: Value, deadline: Instant, interval_s: u64) -> Outcome<Value> {
    let mut interval_s = interval_s.clamp(1, INTERVAL_MAX_S);
    let mut unreachable = None;
    while Instant::now() < deadline {
        tokio::time::sleep(Duration::from_secs(interval_s)).await;
        match Box::pin(perform(context, "/login", request.clone())).await {
            Err(problem) if problem.code == "authorization_pending" => unreachable = None,
            Err(problem) if problem.code == "slow_down" => interval_s = (interval_s + SLOWER_S).min(INTERVAL_MAX_S),
            // A network that comes and goes is waited for, as long as the code is good.
            Err(problem) if matches!(problem.exit_code, exit::TEMPORARY | exit::UNREACHABLE) => unreachable = Some(problem),
            Err(problem) if problem.code == "access_denied" => {
                return Err(Problem::login_failed("this device was refused on the relay's page"));
            }
            Err(problem) if matches!(problem.code.as_str(), "expired_token" | "invalid_grant") => return Err(too_late()),
            answer => return answer,
        }
    }
    Err(unreachable.unwrap_or_else(too_late))
}

fn too_late() -> Problem {
    Problem::login_failed("nobody approved this device in time").hint("run `ferry login` again for a new code")
}

/// Tells the person what to do; whether it was words.
fn show(context: &Context, begun: &Value) -> bool {
    let ui = &context.ui;
    if ui.json {
        // Without the device's own code: with that, whoever reads this would be let in.
        let mut public = begun.clone();
        if let Some(members) = public.as_object_mut() {
            members.remove("device_code");
        }
        ui.record(&public);
        return false;
    }
    let text = |name: &str| begun[name].as_str().unwrap_or_default();
    let minutes = begun["expires_in"].as_u64().unwrap_or(600) / 60;
    let words = format!(
        "To link this computer, open\n    {}\nand enter the code   {}        (valid {minutes} min)",
        text("verification_uri"),
        text("user_code")
    );
    if ui.quiet {
        // Even so: without it nobody can go on.
        ui.line(&words);
        return false;
    }
    ui.message(&words);
    if ui.err_is_terminal
        && let Some(code) = qr(text("verification_uri_complete"))
    {
        ui.message(&code);
    }
    ui.message("Waiting for approval...");
    true
}

/// A QR code in half blocks: what is light in the code is drawn, since terminals are dark.
pub fn qr(text: &str) -> Option<String> {
    let code = QrCode::new(text.as_bytes()).ok()?;
    Some(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

/// Opens the page where there is a display of this person's own.
fn open_browser(url: &str) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    if !(set("DISPLAY") || set("WAYLAND_DISPLAY")) || set("SSH_CONNECTION") || !url.starts_with("http") {
        return false;
    }
    Command::new("xdg-open").arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_for_cameras_is_drawn() {
        let drawn = qr("https://files.example.org/device?user_code=WDJB-MJHT").unwrap();
        let lines: Vec<&str> = drawn.lines().collect();
        assert!(lines.len() > 10 && lines.iter().all(|l| l.chars().count() == lines[0].chars().count()));
        assert!(drawn.chars().all(|c| " ▀▄█\n".contains(c)), "{drawn}");
        assert_eq!(lines[0].trim_matches('█'), "", "a quiet zone that is light on a dark terminal");
    }
}
