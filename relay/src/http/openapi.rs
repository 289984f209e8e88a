//! The OpenAPI document, made from the list of routes: what is not in the router is not in the document, and the other way round.

use super::routes::{Access, Route, Schema};
use serde_json::{Map, Value, json};

/// The methods that a path of the document can have.
const OPERATIONS: [&str; 8] = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"];

/// The document for these routes.
pub fn document(routes: &[Route]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    let mut schemas: Map<String, Value> = Map::new();
    schemas.insert("Problem".into(), problem_schema());
    for route in routes {
        for schema in [&route.request, &route.response].into_iter().flatten() {
            for (name, value) in &schema.components {
                schemas.insert(name.clone(), value.clone());
            }
        }
        // A parameter that takes the rest of a path is one like any other there.
        let at = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| json!({}));
        let method = route.method.as_str();
        if OPERATIONS.contains(&method) {
            at[method.to_ascii_lowercase()] = operation(route);
        } else {
            // OpenAPI 3.1 has no place for the methods of WebDAV; 3.2 calls it so.
            at["x-additionalOperations"][method] = operation(route);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Ferry relay",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "AGPL-3.0-or-later"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "appPassword": {"type": "http", "scheme": "basic", "description": "The e-mail address, and an app password"},
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let id: Vec<&str> = route.path.split(['/', '{', '}', '.', '*']).filter(|p| !p.is_empty()).collect();
    let mut parameters: Vec<Value> = route
        .path
        .split('/')
        .filter_map(|p| p.strip_prefix('{').and_then(|p| p.strip_suffix('}')))
        .map(|name| json!({"name": name.trim_start_matches('*'), "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    if route.in_folder {
        let description = "The folder in which the file is meant. Without it the request is refused (`ambiguous_file`) if several folders that the caller \
                           may open have a file of this id.";
        parameters
            .push(json!({"name": "space_id", "in": "query", "required": false, "description": description, "schema": {"type": "string"}}));
    }
    let mut operation = json!({
        "operationId": format!("{}_{}", route.method.as_str().to_ascii_lowercase(), id.join("_")),
        "summary": route.summary,
        "x-access": route.access,
        "responses": {
            "2XX": response(route.response.as_ref()),
            "default": {"description": "A problem", "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}},
        },
    });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if !matches!(route.access, Access::Public | Access::Signed) {
        let scheme = if route.access == Access::AppPassword { "appPassword" } else { "bearer" };
        operation["security"] = json!([{scheme: []}]);
        operation["x-app-password-scope"] = route.scope.map_or(Value::Null, |scope| scope.as_str().into());
    }
    if route.is_page {
        operation["responses"] = json!({"default": {"description": "A page", "content": {"text/html": {}}}});
    }
    if let Some(schema) = &route.request {
        let kind = if route.takes_form { "application/x-www-form-urlencoded" } else { "application/json" };
        operation["requestBody"] = json!({"required": !route.body_is_optional, "content": {kind: {"schema": reference(schema)}}});
    }
    operation
}

fn response(schema: Option<&Schema>) -> Value {
    match schema {
        None => json!({"description": "Done"}),
        Some(schema) => json!({"description": "Done", "content": {"application/json": {"schema": reference(schema)}}}),
    }
}

fn reference(schema: &Schema) -> Value {
    json!({"$ref": format!("#/components/schemas/{}", schema.name)})
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "description": "Stable; for machines"},
            "detail": {"type": "string"},
            "hint": {"type": "string"},
            "request_id": {"type": "string"},
        },
    })
}
