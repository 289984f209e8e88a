//! Properties of the model: whatever comes in and whatever is pressed, in any order.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn model() -> Model {
    Model::new(1_000_000, TimeZone::UTC, "/home/ana".into())
}

fn connected() -> Model {
    let mut model = model();
    model.apply(Update::Connected(json!({"events": [], "newest": 0})));
    model
}

fn folder(id: &str, state: &str) -> Value {
    json!({"id": id, "name": format!("folder {id}"), "path": "/home/ana/x", "state": state})
}

fn status(folders: &[(&str, &str)]) -> Value {
    let folders: Vec<Value> = folders.iter().map(|(id, state)| folder(id, state)).collect();
    json!({"state": "up_to_date", "folders": folders, "issues": {"conflicts": 0, "errors": 0}})
}

fn hear(model: &mut Model, question: Question, value: Value) {
    model.apply(Update::Answer(question, Ok(value)));
}

#[test]
fn the_choice_stays_on_its_folder_while_others_come_and_go() {
    let mut model = connected();
    hear(&mut model, Question::Status, status(&[("a", "paused"), ("b", "paused"), ("c", "paused")]));
    model.key(Key::Char('3'));
    model.key(Key::Down);
    hear(&mut model, Question::Status, status(&[("0", "paused"), ("a", "paused"), ("b", "up_to_date")]));
    assert_eq!(model.folders.chosen().unwrap().id, "b");
    hear(&mut model, Question::Status, status(&[("z", "paused")]));
    assert_eq!(model.folders.chosen().unwrap().id, "z");
    hear(&mut model, Question::Status, status(&[]));
    assert_eq!(model.folders.at(), None);
    assert_eq!(model.key(Key::Char('p')), None, "there is no folder to pause");
}

#[test]
fn keys_of_a_folder_ask_for_it_by_its_id() {
    let mut model = connected();
    hear(&mut model, Question::Status, status(&[("a/b", "up_to_date")]));
    assert_eq!(model.key(Key::Char('p')), None, "on another page it is no key");
    model.key(Key::Char('3'));
    for (key, action) in [('p', "pause"), ('r', "resume"), ('s', "scan")] {
        let Some(Action::Do(deed)) = model.key(Key::Char(key)) else { panic!("{key} does nothing") };
        assert_eq!(deed.request(), (format!("/folders/a%2Fb/{action}"), json!({})));
        assert!(deed.done(&json!({})).starts_with("folder a/b "), "{}", deed.done(&json!({})));
    }
    model.key(Key::Char('a'));
    assert!(model.popup.is_none() && model.flash.is_some(), "no deletes wait");
}

#[test]
fn what_takes_something_away_is_asked_first() {
    let mut model = connected();
    let conflict = json!({"id": "k1", "folder": "Photos", "path": "a.txt", "copy": "a (conflicted copy).txt", "copy_is_local": true});
    hear(&mut model, Question::Conflicts, json!({"conflicts": [conflict]}));
    model.key(Key::Char('4'));
    for (key, keep) in [('m', "local"), ('t', "remote")] {
        assert_eq!(model.key(Key::Char(key)), None);
        assert!(matches!(&model.popup, Some(Popup::Confirm { question, .. }) if question.contains("Photos/a.txt")));
        assert_eq!(model.key(Key::Enter), None, "only a yes is a yes");
        assert!(model.popup.is_none());
        model.key(Key::Char(key));
        let Some(Action::Do(deed)) = model.key(Key::Char('y')) else { panic!("a yes does nothing") };
        assert_eq!(deed.request(), ("/conflicts/k1/resolve".into(), json!({"keep": keep})));
    }
    let Some(Action::Do(deed)) = model.key(Key::Char('b')) else { panic!("keeping both asks") };
    assert_eq!(deed.request().1, json!({"keep": "both"}));
    let mut held = status(&[("a", "held")]);
    held["folders"][0]["held"] = json!({"count": 1200});
    hear(&mut model, Question::Status, held);
    model.key(Key::Char('3'));
    model.key(Key::Char('a'));
    assert!(matches!(&model.popup, Some(Popup::Confirm { question, .. }) if question.contains("1 200 deletes")));
    let Some(Action::Do(deed)) = model.key(Key::Char('y')) else { panic!("a yes does nothing") };
    assert_eq!(deed.request().0, "/folders/a/approve");
}

#[test]
fn an_issue_is_no_conflict() {
    let mut model = connected();
    hear(&mut model, Question::Issues, json!({"issues": [{"folder": "f", "path": "p", "message": "no", "hint": "do"}]}));
    model.key(Key::Char('4'));
    assert_eq!((model.key(Key::Char('b')), model.popup.clone()), (None, None));
    assert!(model.flash.is_some());
    model.key(Key::Enter);
    let Some(Popup::Detail { title, lines, .. }) = &model.popup else { panic!("no details") };
    assert_eq!((title.as_str(), lines[0].1.as_str(), lines[1].1.as_str()), ("f/p", "no", "do"));
    model.key(Key::Escape);
    assert!(model.popup.is_none());
}

#[test]
fn the_activity_is_filtered_and_who_looks_at_the_newest_goes_on_so() {
    let mut model = connected();
    model.key(Key::Char('5'));
    let event = |id: u64, path: &str| Update::Event(json!({"id": id, "type": "file_uploaded", "folder": "F", "path": path, "bytes": 1}));
    for id in 1..=6 {
        model.apply(event(id, if id % 2 == 0 { "even" } else { "odd" }));
    }
    assert_eq!(model.shown.chosen().unwrap().id, 6);
    model.key(Key::Char('/'));
    for c in "EVq".chars() {
        assert_eq!(model.key(Key::Char(c)), None, "while it is typed, no letter is a key");
    }
    model.key(Key::Backspace);
    assert_eq!(model.shown.items().iter().map(|h| h.id).collect::<Vec<_>>(), [6, 4, 2]);
    model.key(Key::Enter);
    model.key(Key::Down);
    model.apply(event(7, "odd"));
    model.apply(event(8, "even"));
    assert_eq!(model.shown.chosen().unwrap().id, 4, "the choice stays on its event");
    model.key(Key::Escape);
    assert_eq!((model.filter.as_str(), model.shown.items().len(), model.shown.chosen().unwrap().id), ("", 8, 4));
}

#[test]
fn a_daemon_that_goes_away_is_said_and_what_it_said_stays() {
    let mut model = connected();
    hear(&mut model, Question::Status, status(&[("a", "up_to_date")]));
    model.apply(Update::Lost(Problem::no_daemon()));
    let since = model.lost.clone().unwrap().0;
    model.tick(model.now_ms + 5000);
    model.apply(Update::Lost(Problem::no_daemon()));
    assert_eq!(model.lost.clone().unwrap().0, since, "since when it is gone does not move");
    assert!(model.due().is_empty() && model.wakes_at().is_none(), "nobody is asked, and nothing wakes");
    assert_eq!(model.folders.items().len(), 1);
    model.apply(Update::Connected(json!({"events": []})));
    assert!(model.lost.is_none() && model.flash.is_some());
    assert!(model.due().contains(&Question::Status));
}

#[test]
fn while_nothing_runs_almost_nothing_is_asked() {
    let mut model = connected();
    assert_eq!(model.due(), [Question::Status, Question::Peers]);
    assert_eq!(model.wakes_at(), Some(model.now_ms + due::SILENT_MS), "only that it does not answer would be said");
    hear(&mut model, Question::Status, status(&[("a", "up_to_date")]));
    hear(&mut model, Question::Peers, json!({}));
    assert_eq!(model.wakes_at(), Some(model.now_ms + IDLE_MS));
    model.apply(Update::Event(json!({"id": 1, "type": "folder_state"})));
    assert_eq!(model.wakes_at(), Some(model.now_ms + BUSY_MS), "an event is worth a look, but not at once again");
}

#[test]
fn a_silent_daemon_is_told_of() {
    let mut model = connected();
    model.due();
    assert_eq!(model.silent_ms(), None);
    model.tick(model.now_ms + 9000);
    assert_eq!(model.silent_ms(), Some(9000));
    model.tick(model.now_ms - 100_000);
    assert_eq!(model.silent_ms(), None, "a clock that was set back is no silence");
}

#[test]
fn rates_of_transfers_are_measured_between_two_looks() {
    let mut model = connected();
    let look = |done: u64| json!({"transfers": [{"folder_id": "f", "path": "p", "direction": "upload", "via": "relay", "total_bytes": 9_000_000, "done_bytes": done}]});
    hear(&mut model, Question::Transfers, look(1_000_000));
    assert_eq!(model.transfers.items()[0].rate, 0.0);
    model.tick(model.now_ms + 1000);
    hear(&mut model, Question::Transfers, look(3_000_000));
    assert_eq!(model.transfers.items()[0].rate, 2_000_000.0);
    model.tick(model.now_ms + 1000);
    hear(&mut model, Question::Transfers, look(0));
    assert_eq!(model.transfers.items()[0].rate, 0.0, "it has begun anew");
}

/// Any document, with the names that the daemon uses and values that it would not.
pub fn document() -> impl Strategy<Value = Value> {
    let names: Vec<&str> =
        "state device name account user relay message lan enabled folders id path files bytes pending upload download delete \
        pending_bytes held count peers found rtt_ms address reason transfers direction via total_bytes done_bytes lan_bytes \
        issues conflicts errors hint copy wall_ms events type ts_ms last_sync_ms transfer lan_in_bytes relay_in_bytes rates \
        down_bytes_per_s scan entries"
            .split_whitespace()
            .collect();
    let words = ["up_to_date", "syncing", "scanning", "paused", "held", "error", "connected", "upload", "file_uploaded", "relay", "lan"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e300..1e300f64).prop_map(Value::from),
        proptest::sample::select(words.to_vec()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[\\x00-\\x1f\u{202e}\u{65e5}a-z/]{0,80}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 60, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::vec((proptest::sample::select(names.clone()), inner), 0..10)
                .prop_map(|fields| Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())),
        ]
    })
}

/// Something that happens to a model.
#[derive(Debug, Clone)]
pub enum Step {
    /// A key.
    Key(Key),
    /// Something from the daemon.
    Update(Update),
    /// Milliseconds pass.
    Pass(i64),
}

/// Any step.
pub fn step() -> impl Strategy<Value = Step> {
    let characters: Vec<char> = "123456qprsaxmtbyjkgG?/ .nl".chars().collect();
    let moves = [Key::Up, Key::Down, Key::Left, Key::Right, Key::PageUp, Key::PageDown, Key::Home, Key::End];
    let others = [Key::Tab, Key::BackTab, Key::Enter, Key::Escape, Key::Backspace, Key::Control('l')];
    let keys =
        prop_oneof![proptest::sample::select(characters).prop_map(Key::Char), proptest::sample::select([&moves[..], &others].concat())];
    let question = proptest::sample::select(Question::ALL.to_vec());
    let answer = (question, document()).prop_map(|(question, value)| {
        // Often in the place where it is looked for.
        let name = question.path().trim_start_matches('/');
        let value = match value {
            Value::Array(items) => json!({name: items, "folders": items}),
            other => other,
        };
        Update::Answer(question, Ok(value))
    });
    let updates = prop_oneof![
        4 => answer,
        2 => document().prop_map(Update::Event),
        1 => document().prop_map(Update::Connected),
        1 => proptest::sample::select(Question::ALL.to_vec()).prop_map(|q| Update::Answer(q, Err(Problem::usage("no")))),
        1 => Just(Update::Lost(Problem::no_daemon())),
    ];
    prop_oneof![3 => keys.prop_map(Step::Key), 3 => updates.prop_map(Step::Update), 1 => (-2000i64..15_000).prop_map(Step::Pass)]
}

/// Plays a step; what the hands would be told to do.
pub fn play(model: &mut Model, step: Step) -> Option<Action> {
    match step {
        Step::Key(key) => return model.key(key),
        Step::Update(update) => model.apply(update),
        Step::Pass(ms) => model.tick(model.now_ms + ms),
    }
    None
}

proptest! {
    #[test]
    fn the_choice_is_always_one_that_exists(steps in proptest::collection::vec(step(), 0..60)) {
        let mut model = model();
        for step in steps {
            play(&mut model, step);
            for (at, count) in [
                (model.folders.at(), model.folders.items().len()),
                (model.transfers.at(), model.transfers.items().len()),
                (model.troubles.at(), model.troubles.items().len()),
                (model.shown.at(), model.shown.items().len()),
            ] {
                prop_assert_eq!(at.is_some(), count > 0);
                prop_assert!(at.is_none_or(|at| at < count));
            }
            prop_assert!(model.happened() <= ACTIVITY_MAX);
        }
    }

    #[test]
    fn a_question_waits_for_its_answer_and_for_a_second(steps in proptest::collection::vec(step(), 0..80)) {
        let mut model = model();
        let mut asked: std::collections::BTreeMap<Question, i64> = Default::default();
        let mut open: std::collections::BTreeSet<Question> = Default::default();
        for step in steps {
            match &step {
                Step::Update(Update::Answer(question, _)) => { open.remove(question); }
                // A new daemon knows nothing of the old one's questions; a clock that was set back, nothing of times.
                Step::Update(Update::Connected(_)) => { open.clear(); asked.clear(); }
                Step::Pass(ms) if *ms < 0 => asked.clear(),
                _ => {}
            }
            play(&mut model, step);
            for question in model.due() {
                prop_assert!(open.insert(question), "{:?} is asked twice at once", question);
                let before = asked.insert(question, model.now_ms);
                prop_assert!(before.is_none_or(|before| model.now_ms - before >= BUSY_MS), "{:?} is asked too often", question);
            }
            prop_assert!(model.due().is_empty(), "what was asked is not due again");
            prop_assert!(model.wakes_at().is_none_or(|at| at > model.now_ms), "it would spin");
        }
    }

    #[test]
    fn nothing_is_done_without_a_key(steps in proptest::collection::vec(step(), 0..60)) {
        let mut model = model();
        for step in steps {
            let (typing, asked) = (model.typing, matches!(model.popup, Some(Popup::Confirm { .. })));
            let key = if let Step::Key(key) = &step { Some(*key) } else { None };
            let action = play(&mut model, step);
            if let Some(Action::Do(deed)) = action {
                prop_assert!(!typing);
                let asks = matches!(deed, Deed::Resolve { keep: "local" | "remote", .. } | Deed::Folder { action: "approve" | "reject", .. });
                prop_assert!(!asks || (asked && key == Some(Key::Char('y'))), "{:?} without a yes", deed);
            }
        }
    }
}
