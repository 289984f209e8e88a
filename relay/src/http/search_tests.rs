//! Search, activity and storage over the real router: shapes, and that nobody finds what is another's. R16, R45, R67.

use super::content_tests::{User, World};
use crate::store::testing::{Db, on_each_store};
use axum::http::Method;
use serde_json::{Value, json};

/// The paths that a search finds, with those of shared files marked.
async fn found(world: &World, user: &User, query: &str) -> Vec<String> {
    let answer = world.get(user, &format!("/api/v1/search?{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.json());
    let name = |file: &Value| {
        let shared = if file["is_shared_file"] == true { "shared " } else { "" };
        format!("{shared}{}", file["file_path"].as_str().unwrap())
    };
    answer.json()["files"].as_array().unwrap().iter().map(name).collect()
}

on_each_store!(a_search_finds_what_the_caller_may_see_as_it_is_now);

async fn a_search_finds_what_the_caller_may_see_as_it_is_now(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let plan = world.upload(&alice, "Übersicht plan.txt", b"hello").await;
    world.upload(&alice, "100%_plan.pdf", b"a longer one").await;
    world.upload(&mal, "plan of mal.txt", b"mine").await;
    let directory = json!({"actions": [{"action": "mkdir", "path": "/", "file_name": "Plans"}]});
    assert_eq!(world.json(&alice, Method::POST, "/api/v1/files/batch", directory).await.status, 200);
    let to = json!({"actions": [{"action": "move", "file_id": plan, "path": "/Plans"}]});
    assert_eq!(world.json(&alice, Method::POST, "/api/v1/files/batch", to).await.status, 200);

    let mut all = found(&world, &alice, "q=PLAN").await;
    all.sort();
    assert_eq!(all, ["/100%_plan.pdf", "/Plans", "/Plans/Übersicht plan.txt"]);
    assert_eq!(found(&world, &alice, "q=plan+ubersicht").await, ["/Plans/Übersicht plan.txt"]);
    assert_eq!(found(&world, &alice, "q=plans").await, ["/Plans"]);
    for (text, wanted) in [("%25", 1), ("_", 1), ("100%25_", 1), ("'", 0), ("%5C", 0), ("--", 0), ("pl_n", 0)] {
        assert_eq!(found(&world, &alice, &format!("q={text}")).await.len(), wanted, "{text}");
    }
    assert_eq!(found(&world, &alice, "q=plan&type=document&max_size=6").await, ["/Plans/Übersicht plan.txt"]);
    assert_eq!(found(&world, &alice, "type=directory").await, ["/Plans"]);
    assert_eq!(found(&world, &alice, &format!("q=plan&space_id={}&path=/Plans", alice.home)).await, ["/Plans/Übersicht plan.txt"]);
    assert_eq!(found(&world, &alice, "q=plan&since=2100-01-01T00:00:00Z").await, [""; 0]);
    // Pages follow each other.
    let first = world.get(&alice, "/api/v1/search?q=plan&limit=2").await.json();
    assert_eq!((first["files"].as_array().unwrap().len(), &first["has_more"]), (2, &json!(true)));
    let rest = found(&world, &alice, &format!("q=plan&limit=2&cursor={}", first["cursor"].as_str().unwrap())).await;
    assert_eq!(rest.len(), 1);

    // Another's: neither found nor told apart from what is not there.
    assert_eq!(found(&world, &mal, "q=plan").await, ["/plan of mal.txt"]);
    assert_eq!(world.get(&mal, &format!("/api/v1/search?q=plan&space_id={}", alice.home)).await.status, 404);
    let share = json!({"file_id": plan, "email": "u2@example.org", "role": "viewer"});
    let share = world.json(&alice, Method::POST, "/api/v1/shares", share).await;
    assert_eq!(world.get(&mal, "/api/v1/shares?with=me").await.status, 200);
    let mut both = found(&world, &mal, "q=plan").await;
    both.sort();
    assert_eq!(both, ["/plan of mal.txt", "shared /Übersicht plan.txt"], "the file, and not where it stands");
    assert_eq!(found(&world, &mal, "q=plans").await, [""; 0]);
    let id = world.get(&mal, "/api/v1/shares?with=me").await.json()["shares"][0]["share_id"].as_str().unwrap().to_owned();
    assert_eq!(share.status, 201);
    assert_eq!(world.call(&mal, Method::DELETE, &format!("/api/v1/shares/{id}"), &[], "").await.status / 100, 2);
    assert_eq!(found(&world, &mal, "q=plan").await, ["/plan of mal.txt"]);

    assert_eq!(world.call(&alice, Method::DELETE, &format!("/metadata/files/{plan}"), &[], "").await.status, 200);
    assert_eq!(found(&world, &alice, "q=ubersicht").await, [""; 0], "what is in the trash is not found");

    for wrong in ["", "q=", "q=+", "q=a&type=nothing", "q=a&since=yesterday", "q=a&cursor=x", "q=a&path=/Plans", "q=a&min_size=-1"] {
        assert_eq!(world.get(&alice, &format!("/api/v1/search?{wrong}")).await.status / 100, 4, "{wrong}");
    }
    for long in ["a".repeat(513), "a+".repeat(9)] {
        assert_eq!(world.get(&alice, &format!("/api/v1/search?q={long}")).await.status / 100, 4);
    }
}

on_each_store!(activity_says_what_happened_the_newest_first);

async fn activity_says_what_happened_the_newest_first(kind: Db) {
    let world = World::on(kind).await;
    let (alice, mal) = (world.user(1).await, world.user(2).await);
    let file = world.upload(&alice, "a.txt", b"hello").await;
    let rename = json!({"file_name": "b.txt"});
    assert_eq!(world.json(&alice, Method::PUT, &format!("/metadata/files/{file}"), rename).await.status, 200);
    assert_eq!(world.call(&alice, Method::DELETE, &format!("/metadata/files/{file}"), &[], "").await.status, 200);
    let restore = json!({"file_id": file});
    assert_eq!(world.json(&alice, Method::POST, "/api/v1/trash/restore", restore).await.status, 200);
    let mut acts: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = world.get(&alice, &format!("/api/v1/activity?limit=1{cursor}")).await.json();
        acts.extend(page["acts"].as_array().unwrap().clone());
        let Some(next) = page["cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
        assert!(acts.len() < 10, "pages without an end");
    }
    // Four within one moment have no order among each other but that of their numbers.
    let told: Vec<String> = acts.iter().map(|act| format!("{} {}", act["acts"], act["name"].as_str().unwrap())).collect();
    assert_eq!(told, [r#"["restored"] b.txt"#, r#"["deleted"] b.txt"#, r#"["renamed"] b.txt"#, r#"["created"] a.txt"#]);
    assert_eq!((acts[2]["old_name"].as_str(), acts[0]["file_path"].as_str()), (Some("a.txt"), Some("/b.txt")));
    let by = &acts[0]["by"];
    assert_eq!((&by["is_me"], &by["email"], &by["device"]), (&json!(true), &json!("u1@example.org"), &Value::Null), "through the web");
    assert_eq!(world.get(&mal, "/api/v1/activity").await.json()["acts"], json!([]));
    assert_eq!(world.get(&mal, &format!("/api/v1/activity?space_id={}", alice.home)).await.status, 404);
    for wrong in ["cursor=x", "device_id=x", "space_id=x"] {
        assert_eq!(world.get(&alice, &format!("/api/v1/activity?{wrong}")).await.status / 100, 4, "{wrong}");
    }
}

on_each_store!(storage_says_what_it_goes_to);

async fn storage_says_what_it_goes_to(kind: Db) {
    let world = World::on(kind).await;
    let alice = world.user(1).await;
    world.upload(&alice, "a.bin", &[7; 1000]).await;
    // Equal bytes are there already: nothing is sent.
    let again = json!({"file_name": "b.bin", "file_size": 1000, "file_hash": ferry_protocol::ContentHash::of(&[7; 1000])});
    assert_eq!(world.json(&alice, Method::POST, "/upload/init", again).await.json()["deduplication"], true);
    let gone = world.upload(&alice, "c.bin", &[8; 500]).await;
    assert_eq!(world.call(&alice, Method::DELETE, &format!("/metadata/files/{gone}"), &[], "").await.status, 200);
    let storage = world.get(&alice, "/api/v1/me/storage").await.json();
    let space = &storage["spaces"][0];
    let of = |name: &str| space[name].as_u64().unwrap();
    assert_eq!((of("files"), of("file_bytes"), of("trash"), of("trash_bytes")), (2, 2000, 1, 500));
    assert_eq!((of("versions"), of("version_bytes")), (3, 2500));
    assert_eq!(storage["storage_used"], 1500, "equal bytes are stored once");
}
