//! HTML that is escaped by construction: a template's holes take text, which is escaped, or HTML that was made here. Nothing else makes an [`Html`].

use super::{assets, language};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// No script at all, styles of this relay, forms to this relay, no frames (R50).
const CSP: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// A piece of HTML.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Html(String);

/// What goes into a hole.
#[derive(Debug, Clone, Copy)]
pub(super) enum Slot<'a> {
    /// Text of whatever origin: escaped, also for attribute values in quotes.
    Text(&'a str),
    /// HTML.
    Html(&'a Html),
}

impl<'a> From<&'a str> for Slot<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Slot<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a Html> for Slot<'a> {
    fn from(html: &'a Html) -> Self {
        Self::Html(html)
    }
}

impl Html {
    /// One after the other.
    pub(super) fn concat(parts: impl IntoIterator<Item = Html>) -> Self {
        Self(parts.into_iter().map(|p| p.0).collect())
    }

    /// The text of it.
    pub(super) fn into_text(self) -> String {
        self.0
    }

    /// A whole page, never cached, under a policy without any script.
    pub(super) fn into_page(self, status: StatusCode, title: &str) -> Response {
        let page = fill(include_str!("pages/shell.html"), &[("title", title.into()), ("body", (&self).into())]);
        let mut response = (status, page.0).into_response();
        for (name, value) in [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, CSP),
            (header::CACHE_CONTROL, "no-store"),
            // Not `no-referrer`: a browser would then hide the origin of our own forms, by which we know them (R51).
            (header::REFERRER_POLICY, "same-origin"),
            (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Fills the `{{holes}}` of a template of ours; `{{t:key}}` is a message of the request's language, `{{lang}}` that language, `{{build}}` the name of the client's build. A hole without a value stays empty; a test fills every template.
pub(super) fn fill(template: &'static str, values: &[(&str, Slot<'_>)]) -> Html {
    let mut out = String::with_capacity(template.len() + 256);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((name, after)) = after.split_once("}}") else { break };
        let slot = match name.strip_prefix("t:") {
            Some(key) => Some(Slot::Text(language::message(key))),
            None if name == "lang" => Some(Slot::Text(language::current().code())),
            None if name == "build" => Some(Slot::Text(assets::build())),
            None => values.iter().find(|(known, _)| *known == name).map(|(_, slot)| *slot),
        };
        debug_assert!(slot.is_some(), "nothing for {{{{{name}}}}}");
        match slot {
            Some(Slot::Text(text)) => escape_into(&mut out, text),
            Some(Slot::Html(html)) => out.push_str(&html.0),
            None => {}
        }
        rest = after;
    }
    out.push_str(rest);
    Html(out)
}

fn escape_into(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // What turns the direction of the text around would let a name lie about what stands beside it (R46).
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_html_stays_html() {
        let inner = fill("<b>{{x}}</b>", &[("x", "<i>&\"'\u{202e}".into())]);
        assert_eq!(inner.0, "<b>&lt;i&gt;&amp;&quot;&#39;\u{fffd}</b>");
        assert_eq!(fill("{{a}}-{{b}}", &[("a", (&inner).into()), ("b", "{{a}}".into())]).0, format!("{}-{{{{a}}}}", inner.0));
    }
}
