use super::request::{Call, Content, InvalidCall};

fn parse(name: &str, payload: &str) -> Result<Call, InvalidCall> {
    Call::parse(name, payload.as_bytes())
}

#[test]
fn names_match_in_any_case_and_unknown_ones_are_told_the_known() {
    assert!(matches!(parse("PING", ""), Ok(Call::Ping)));
    let restart = parse("restartmodule", r#"{"SchemaVersion":"1.0","ID":"led"}"#);
    assert!(matches!(restart, Ok(Call::RestartModule { id }) if id == "led"));
    let error = parse("reboot", "{}").unwrap_err().to_string();
    assert!(
        error.starts_with("Command 'reboot' not found. The supported commands are - ping, "),
        "{error}"
    );
}

#[test]
fn the_portals_request_for_logs_reads() {
    let payload = r#"{"schemaVersion":"1.0","items":[{"id":"\\bled\\b","filter":{"tail":1500,
        "since":"15m","until":null,"loglevel":null,"regex":""}}],"encoding":"gzip","contentType":"text"}"#;
    let Ok(Call::GetModuleLogs(request)) = parse("GetModuleLogs", payload) else {
        panic!("not understood");
    };
    assert!(request.gzip);
    assert_eq!(request.content, Content::Text);
    let filter = &request.item_for("led").unwrap().filter;
    assert_eq!(filter.tail, Some(1500));
    assert_eq!(filter.since.as_deref(), Some("15m"));
    assert!(filter.regex.is_none() && filter.until.is_none() && filter.level.is_none());
    assert!(request.item_for("ledger").is_none());
    assert!(request.item_for("LED").is_some());
}

#[test]
fn the_first_item_that_names_a_module_counts() {
    let payload = r#"{"schemaVersion":"1.0","items":[{"id":"le","filter":{"tail":1}},{"id":"ALL"}],"encoding":1,"contentType":1}"#;
    let Ok(Call::GetModuleLogs(request)) = parse("GetModuleLogs", payload) else {
        panic!("not understood");
    };
    assert_eq!(request.item_for("led").unwrap().filter.tail, Some(1));
    assert_eq!(request.item_for("button").unwrap().filter.tail, None);
    assert!(request.gzip);
}

#[test]
fn one_item_need_be_no_list_and_json_is_the_default() {
    let Ok(Call::GetModuleLogs(request)) = parse(
        "GetModuleLogs",
        r#"{"schemaVersion":"1.0","items":{"id":"all"}}"#,
    ) else {
        panic!("not understood");
    };
    assert_eq!(request.content, Content::Json);
    assert!(!request.gzip);
}

#[test]
fn malformed_payloads_are_refused_by_the_field() {
    for (name, payload, part) in [
        ("RestartModule", "", "no JSON object"),
        ("RestartModule", "[]", "no JSON object"),
        ("RestartModule", "{}", "schemaVersion is missing"),
        (
            "RestartModule",
            r#"{"schemaVersion":"2.0","id":"led"}"#,
            "schemaVersion is \"2.0\"",
        ),
        (
            "RestartModule",
            r#"{"schemaVersion":"1.0"}"#,
            "id is missing",
        ),
        (
            "RestartModule",
            r#"{"schemaVersion":"1.0","id":7}"#,
            "id must be text",
        ),
        (
            "GetModuleLogs",
            r#"{"schemaVersion":"1.0"}"#,
            "items is missing",
        ),
        (
            "GetModuleLogs",
            r#"{"schemaVersion":"1.0","items":[{"id":"("}]}"#,
            "id is no regular expression",
        ),
        (
            "GetModuleLogs",
            r#"{"schemaVersion":"1.0","items":{"id":"all","filter":{"tail":-1}}}"#,
            "tail must be",
        ),
        (
            "GetModuleLogs",
            r#"{"schemaVersion":"1.0","items":{"id":"all"},"encoding":"zip"}"#,
            "encoding must be",
        ),
        (
            "UploadModuleLogs",
            r#"{"schemaVersion":"1.0","items":{"id":"all"}}"#,
            "sasUrl is missing",
        ),
        (
            "UploadSupportBundle",
            r#"{"schemaVersion":"1.0","sasUrl":"x"}"#,
            "sasUrl is no URL",
        ),
        (
            "GetTaskStatus",
            r#"{"schemaVersion":"1.0"}"#,
            "correlationId is missing",
        ),
    ] {
        let error = parse(name, payload).unwrap_err().to_string();
        assert!(error.contains(part), "{name} {payload}: {error}");
    }
}
