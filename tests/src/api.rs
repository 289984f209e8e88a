//! The relay's plain HTTP API as a program without Ferry uses it: for what a person does in the web client.

use crate::relay::{EMAIL, PASSWORD, Relay};
use reqwest::Method;
use reqwest::blocking::{Client, Response};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

/// A login without a device.
pub struct Api {
    client: Client,
    relay: String,
    token: String,
}

impl Api {
    /// Logs the one user in. Panics if the relay does not let her.
    pub fn login(relay: &Relay) -> Self {
        // The client must speak TLS of some kind to be made; another test of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::builder().no_proxy().build().expect("a client");
        let mut api = Self { client, relay: relay.url(), token: String::new() };
        let answer = api.json(Method::POST, "/auth/login", &json!({"email": EMAIL, "password": PASSWORD}));
        api.token = answer["access_token"].as_str().expect("a token").to_owned();
        api
    }

    /// Sends a request with this body.
    pub fn send(&self, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Response {
        let request = self.client.request(method, format!("{}{path}", self.relay)).header("content-type", kind);
        let request = if self.token.is_empty() { request } else { request.bearer_auth(&self.token) };
        request.body(body).send().expect("an answer")
    }

    /// JSON there and back; the relay must agree.
    pub fn json(&self, method: Method, path: &str, body: &Json) -> Json {
        let answer = self.send(method.clone(), path, "application/json", body.to_string().into_bytes());
        let status = answer.status();
        let text = answer.text().expect("text");
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Json::Null)
    }

    /// The id of the namespace of this name.
    pub fn space(&self, name: &str) -> String {
        let list = self.json(Method::GET, "/sync/v1/namespaces", &Json::Null);
        let found = list.as_array().expect("a list").iter().find(|n| n["name"] == name);
        found.unwrap_or_else(|| panic!("{name} in {list}"))["id"].as_str().expect("an id").to_owned()
    }

    /// Uploads a small file into a directory of a namespace; over what stands there under its name. Its id.
    pub fn upload(&self, space: &str, directory: &str, name: &str, bytes: &[u8]) -> String {
        let hash = hex::encode(Sha256::digest(bytes));
        let init = json!({"space_id": space, "path": directory, "file_name": name, "file_size": bytes.len(), "file_hash": hash});
        let begun = self.json(Method::POST, "/upload/init", &init);
        if let Some(id) = begun["file_id"].as_str().filter(|_| begun["deduplication"] == true) {
            return id.to_owned();
        }
        let version = begun["version_id"].as_str().unwrap_or_else(|| panic!("{begun}"));
        let put = self.send(Method::PUT, &format!("/upload/{version}/chunks/0"), "application/octet-stream", bytes.to_vec());
        assert!(put.status().is_success(), "{:?}", put.text());
        let done = self.json(Method::POST, &format!("/upload/complete/{version}"), &Json::Null);
        done["file_id"].as_str().unwrap_or_else(|| panic!("{done}")).to_owned()
    }
}
