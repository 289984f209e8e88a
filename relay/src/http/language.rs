//! The language of pages that the relay renders: the first of those that a browser asks for (`Accept-Language`) in which there is a catalogue. Catalogues
//! (`pages/i18n/*.json`) are of the form that the web client's have; English is complete by definition, a test holds the others to it.

use crate::service::ServiceError;
use axum::http::{HeaderMap, header};
use std::collections::HashMap;
use std::sync::OnceLock;

/// A language in which there are messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    English,
    German,
}

tokio::task_local! {
    /// That of the request which is being answered.
    static CURRENT: Language;
}

/// Most parts of a header that are looked at.
const WISHES_MAX: usize = 32;

impl Language {
    const ALL: [Self; 2] = [Self::English, Self::German];

    /// Its name in addresses and attributes.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }

    fn catalogue(self) -> &'static HashMap<String, String> {
        static CATALOGUES: OnceLock<[HashMap<String, String>; 2]> = OnceLock::new();
        let read = |text: &str| serde_json::from_str(text).unwrap_or_default();
        let all = CATALOGUES.get_or_init(|| [read(include_str!("pages/i18n/en.json")), read(include_str!("pages/i18n/de.json"))]);
        match self {
            Self::English => &all[0],
            Self::German => &all[1],
        }
    }

    /// That which these headers ask for.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::ACCEPT_LANGUAGE).iter().filter_map(|value| value.to_str().ok());
        let mut wishes: Vec<(Self, f32)> = values
            .flat_map(|value| value.split(','))
            .take(WISHES_MAX)
            .filter_map(|wish| {
                let (name, rest) = wish.split_once(';').unwrap_or((wish, ""));
                let weight = rest.trim().strip_prefix("q=").map_or(Some(1.0), |q| q.parse::<f32>().ok())?;
                let base = name.trim().split('-').next()?;
                let language = Self::ALL.into_iter().find(|one| one.code().eq_ignore_ascii_case(base))?;
                (weight > 0.0).then_some((language, weight))
            })
            .collect();
        // Of the same weight the first: the sort keeps their order.
        wishes.sort_by(|a, b| b.1.total_cmp(&a.1));
        wishes.first().map_or(Self::English, |(language, _)| *language)
    }
}

/// Does something in a language.
pub(super) async fn within<T>(language: Language, work: impl Future<Output = T>) -> T {
    CURRENT.scope(language, work).await
}

/// The language of what is being done; English where nobody asked for one.
pub(super) fn current() -> Language {
    CURRENT.try_with(|language| *language).unwrap_or(Language::English)
}

fn find(language: Language, key: &str) -> Option<&'static str> {
    language.catalogue().get(key).or_else(|| Language::English.catalogue().get(key)).map(String::as_str)
}

/// A message.
pub(super) fn message(key: &str) -> &'static str {
    let found = find(current(), key);
    debug_assert!(found.is_some(), "no message {key}");
    found.unwrap_or_default()
}

/// A message with `{holes}`, filled.
pub(super) fn filled(key: &str, values: &[(&str, &str)]) -> String {
    fill(message(key), values)
}

fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len() + 32), text);
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, after)) = after.split_once('}') else { return out + &rest[before.len()..] };
        out.push_str(values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value));
        rest = after;
    }
    out + rest
}

/// What went wrong, for a person: in our words for its code where there are some, else in the relay's, and what can be done about it.
pub(super) fn problem(error: &ServiceError) -> String {
    let seconds = error.retry_after_s().unwrap_or(1).to_string();
    match find(current(), &format!("error.{}", error.code())) {
        Some(text) => fill(text, &[("seconds", &seconds)]),
        None => [Some(error.detail()), error.hint_text()].into_iter().flatten().collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_first_language_that_we_have_is_taken() {
        let of = |value: &str| Language::wanted(&HeaderMap::from_iter([(header::ACCEPT_LANGUAGE, value.parse().unwrap())]));
        for german in ["de", "de-AT,en;q=0.5", "fr-FR, fr;q=0.9, de;q=0.8, en;q=0.7", "en;q=0.2,de;q=0.3", "DE", "de,en"] {
            assert_eq!(of(german), Language::German, "{german}");
        }
        for english in ["", "fr", "en,de", "de;q=0,en;q=0.1", "de;q=x", "deutsch", "*", ",,;;q=,", "en;q=0.9,de;q=0.8"] {
            assert_eq!(of(english), Language::English, "{english}");
        }
        assert_eq!(Language::wanted(&HeaderMap::new()), Language::English);
    }

    fn holes(text: &str) -> BTreeSet<&str> {
        text.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name).collect()
    }

    #[test]
    fn every_catalogue_has_every_message_with_the_same_holes() {
        let english = Language::English.catalogue();
        assert!(english.len() > 40, "{}", english.len());
        let german = Language::German.catalogue();
        assert_eq!(german.keys().collect::<BTreeSet<_>>(), english.keys().collect::<BTreeSet<_>>());
        for (key, text) in german {
            assert!(!text.trim().is_empty(), "{key}");
            assert_eq!(holes(text), holes(&english[key]), "{key}");
        }
    }

    #[tokio::test]
    async fn a_message_is_of_the_requests_language() {
        let error = || ServiceError::too_many(7);
        let said =
            within(Language::German, async { (message("login.title"), filled("who", &[("email", "a{x}b")]), problem(&error())) }).await;
        assert_eq!(said, ("Anmelden", "Angemeldet als a{x}b".into(), "Zu viele Versuche. Bitte in 7 s noch einmal.".into()));
        assert_eq!((message("login.title"), problem(&error())), ("Log in", "Too many attempts. Try again in 7 s.".into()));
        let unknown = ServiceError::invalid("of_no_catalogue", "A sentence.").hint("Do this.");
        assert_eq!(within(Language::German, async { problem(&unknown) }).await, "A sentence. Do this.");
    }
}
