use foreshadow_model::RedactRule;
use http::header;
use proptest::prelude::*;

use super::*;

fn redactor() -> Redactor {
    let rule = |place, name: &str, mode| RedactRule { place, name: name.into(), mode };
    let rules = vec![
        rule(RedactPlace::Header, "X-Customer", RedactMode::Tokenise),
        rule(RedactPlace::Header, "x-masked", RedactMode::Mask),
        rule(RedactPlace::Header, "x-removed", RedactMode::Remove),
        rule(RedactPlace::Query, "account", RedactMode::Tokenise),
        rule(RedactPlace::Query, "masked", RedactMode::Mask),
        rule(RedactPlace::Query, "removed", RedactMode::Remove),
        rule(RedactPlace::Form, "street", RedactMode::Tokenise),
        rule(RedactPlace::Json, "user.name", RedactMode::Tokenise),
        rule(RedactPlace::Json, "items.*.note", RedactMode::Mask),
        rule(RedactPlace::Json, "debug", RedactMode::Remove),
    ];
    let policy = RedactPolicy { rules, terms: vec!["falcon".into()], descriptors: Vec::new() };
    Redactor::new([7; 32], &policy).unwrap()
}

fn copy(uri: &str, headers: &[(&str, &str)]) -> Result<Request<()>, DropReason> {
    let mut live = Request::builder().uri(uri);
    for (name, value) in headers {
        live = live.header(*name, *value);
    }
    redact_request(&redactor(), &live.body(()).unwrap().into_parts().0)
}

#[test]
fn secrets_are_gone_and_their_shape_stays() {
    let copy = copy(
        "/a?x=1&access_token=Abc-123&ACCOUNT=DE44",
        &[
            ("authorization", "Bearer s3cr3t-Value"),
            ("cookie", "theme=dark; sid=abc123"),
            ("x-customer", "Jane Doe"),
            ("accept", "text/html"),
            ("x-forwarded-for", "192.0.2.1"),
            ("referer", "http://h/p?token=q1w2#frag"),
        ],
    )
    .unwrap();
    let all = format!("{} {:?}", copy.uri(), copy.headers());
    for secret in ["s3cr3t", "abc123", "Abc-123", "DE44", "Doe", "192.0.2.1", "q1w2", "frag", "dark", "Jane"]
    {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    let authorization = copy.headers()["authorization"].to_str().unwrap();
    assert!(authorization.starts_with("Bearer ") && authorization.len() == "Bearer s3cr3t-Value".len());
    assert!(all.contains("x=1") && all.contains("theme=") && all.contains("text/html"));
}

#[test]
fn what_cannot_be_read_is_not_mirrored() {
    assert_eq!(copy("/a?x=%zz", &[]).unwrap_err(), DropReason::RedactionFailed);
    assert_eq!(copy("/a?%ff=1", &[]).unwrap_err(), DropReason::RedactionFailed);
}

#[test]
fn an_encoded_name_does_not_hide_a_secret() {
    assert!(!copy("/a?%74oken=hunter2", &[]).unwrap().uri().to_string().contains("hunter2"));
}

#[test]
fn a_secret_does_not_hide_behind_another_spelling() {
    let targets = [
        "/a?x=1;token=hunter2",
        "/a?next=%2Flogin%3Ftoken%3Dhunter2",
        "/a?next=%252Flogin%253Ftoken%253Dhunter2",
        "/a;jsessionid=hunter2/b",
        "/a?x=eyJhunter2.eyJhunter2",
        "/a?eyJhunter2",
        "/a?Api_Key=hunter2",
        "/go/https%3A%2F%2Fx%2F%3Ftoken%3Dhunter2",
        "/u/hunter2%2540shop.example",
    ];
    for target in targets {
        let uri = copy(target, &[]).unwrap().uri().to_string();
        assert!(!uri.contains("hunter2"), "{uri}");
        assert_eq!(uri.len(), target.len());
    }
}

#[test]
fn an_object_within_a_query_is_read_as_one() {
    for target in [
        "/a?filter={%22password%22:%22hunter2%22}",
        "/a?f=%7B%22%5Cu0070assword%22:%22hunter2%22,%22n%22:1%7D",
    ] {
        let uri = copy(target, &[]).unwrap();
        let query = percent_decoded(uri.uri().query().unwrap()).unwrap().into_owned();
        let (_, object) = query.split_once('=').unwrap();
        let value: serde_json::Value = serde_json::from_str(object).unwrap();
        assert_eq!(value["password"].as_str().unwrap().len(), 7);
        assert!(!query.contains("hunter2"), "{query}");
    }
}

#[test]
fn a_secret_does_not_hide_in_a_header_nobody_named() {
    let headers = [
        ("referer", "https://user:hunter2@h/p"),
        ("referer", "https://h/p;jsessionid=hunter2?x=1"),
        ("x-original-url", "/p?token=hunter2"),
        ("ocp-apim-subscription-key", "hunter2 hunter2"),
        ("x-data", "eyJhunter2.eyJhunter2.x"),
        ("x-original-url", "/cart;jsessionid=hunter2//x"),
        ("x-original-uri", "/u/hunter2@shop.example/x//y"),
        ("x-note", "{\"to\":\"hunter2\\u0040shop.example\"}"),
        ("x-other", "f({\"\\u0070assword\":\"hunter2\"})"),
        ("x-envoy-original-path", "/p?token=hunter2"),
        ("hx-current-url", "https://h/?password=hunter2"),
        ("x-data", "{\"password\":\"hunter2\"}"),
        ("x-user", "hunter2%40shop.example"),
        ("baggage", "email=hunter2"),
        ("x-github-otp", "hunter2"),
        ("x-remote-addr", "hunter2"),
        ("host", "hunter2@shop.example"),
        ("x-original-forwarded-for", "hunter2"),
        ("authorization", "hunter2 hunter2"),
    ];
    for (name, value) in headers {
        let copy = copy("/", &[(name, value)]).unwrap();
        assert!(!format!("{:?}", copy.headers()).contains("hunter2"), "{copy:?}");
    }
}

#[test]
fn an_encoded_secret_stays_decodable() {
    let uri = copy("/a?token=%4A%c3%a4x%20", &[]).unwrap().uri().to_string();
    let value = percent_decoded(uri.split_once('=').unwrap().1).unwrap().into_owned();
    assert!(!value.contains('J') || !value.contains('x'), "{value}");
    assert!(value.ends_with(' ') && value.len() == 5);
}

#[test]
fn user_and_password_in_an_absolute_target_do_not_reach_the_copy() {
    assert_eq!(copy("http://user:pw@host/a", &[]).unwrap().uri(), "/a");
}

#[test]
fn the_operator_says_what_becomes_of_a_value() {
    let copy = copy(
        "/a?masked=hunter2&x=1&removed=hunter2",
        &[("x-masked", "hunter2"), ("x-removed", "hunter2"), ("x-note", "ask Falcon first")],
    )
    .unwrap();
    assert_eq!(copy.uri(), "/a?masked=*******&x=1");
    assert_eq!(copy.headers()["x-masked"], "*******");
    assert!(!copy.headers().contains_key("x-removed"));
    let note = copy.headers()["x-note"].to_str().unwrap();
    assert!(note.starts_with("ask ") && note.ends_with(" first") && !note.contains("Falcon"), "{note}");
}

#[test]
fn what_gives_itself_away_is_found_in_every_part_of_a_head() {
    let targets = [
        "/u/jane@shop.example/x",
        "/u?q=jane%40shop.example",
        "/u?jane@shop.example",
        "/u?q=4111+1111+1111+1111",
    ];
    for target in targets {
        let uri = copy(target, &[]).unwrap().uri().to_string();
        assert!(!uri.contains("jane") && !uri.contains("4111"), "{uri}");
        assert_eq!(uri.len(), target.len());
    }
    let copy = copy("/", &[("x-note", "from jane@shop.example")]).unwrap();
    assert!(!format!("{:?}", copy.headers()).contains("jane"));
}

fn body(kind: &str, text: &str) -> Result<String, DropReason> {
    packed(kind, "identity", text.as_bytes())
}

fn packed(kind: &str, encoding: &str, bytes: &[u8]) -> Result<String, DropReason> {
    let headers = [(header::CONTENT_TYPE, kind), (header::CONTENT_ENCODING, encoding)];
    let mut live = Request::builder();
    for (name, value) in headers {
        live = live.header(name, value);
    }
    let live = live.body(()).unwrap().into_parts().0;
    redact_body(&redactor(), &BodyKind::of(&live)?, bytes, 10_000)
        .map(|clean| String::from_utf8(clean).unwrap())
}

#[test]
fn a_json_body_keeps_its_shape_and_loses_its_secrets() {
    let text = r#"{"a":1.50,"b":[true,null],"password":"hunter2","user":{"name":"hunter2","id":7},
        "items":[{"note":"hunter2","n":1},{"note":2}],"debug":{"x":"hunter2"},"a":"said twice",
        "mail":"from hunter2@shop.example","jane.hunter2@shop.example":1,"pin":{"deep":["hunter2",4242]},
        "card":4111111111111111,"link":"https://x/?token=hunter2","inner":"{\"secret\":\"hunter2\",\"n\":1}",
        "esc":"\u0070assword=hunter2"}"#;
    let clean = body("application/json; charset=UTF-8", text).unwrap();
    assert!(!clean.contains("hunter2") && !clean.contains("411111"), "{clean}");
    for kept in [
        "\"a\":1.50",
        "\"b\":[true,null]",
        "\"id\":7",
        "{\"note\":\"*******\",\"n\":1},{\"note\":0}",
        "said twice",
        r#"\"n\":1}"#,
    ] {
        assert!(clean.contains(kept), "{kept} in {clean}");
    }
    assert!(!clean.contains("debug"), "{clean}");
    let value: serde_json::Value = serde_json::from_str(&clean).unwrap();
    assert_eq!(value["password"].as_str().unwrap().len(), 7);
    assert!(value["card"].is_u64());
}

#[test]
fn a_text_that_only_looks_like_json_does_not_switch_a_rule_off() {
    let clean = body("application/json", r#"{"title":"[draft] hello]","user":{"name":"hunter2"}}"#).unwrap();
    assert!(clean.contains("[draft] hello]") && !clean.contains("hunter2"), "{clean}");
}

#[test]
fn what_the_operator_says_of_a_value_counts_more_than_what_hides_it() {
    let text = r#"{"session":{"debug":1},"https://shop/?token=hunter2":1,"hunter2%40shop.example":2,"items":[{"note":"hunter2"}],"user.name":"hunter2","tokens":{"hunter2":true}}"#;
    let clean = body("application/json", text).unwrap();
    assert!(!clean.contains("hunter2") && clean.contains("*******"), "{clean}");
}

#[test]
fn a_secret_does_not_hide_behind_a_semicolon_a_bracket_or_a_plus_sign() {
    let form = "application/x-www-form-urlencoded";
    for text in [
        "password=hun;ter2&x=1",
        "token=a;ter2;ter2",
        "card[cvc]=ter2",
        "address[street]=ter2",
        "user%5Bpin%5D=ter2",
        "payload={%22user%22:{%22name%22:%22ter2%22}}",
        "next=/x?street=ter2",
        "q=100%25+off+ter2%2540shop.example",
        "pass%20word=1&q={\"password\":\"ter2\"",
    ] {
        let clean = body(form, text).unwrap();
        assert!(!clean.contains("ter2"), "{text} became {clean}");
    }
    assert_eq!(body(form, r#"{"password":"hunter2","q":"a=b"}"#), Err(DropReason::RedactionFailed));
    assert_eq!(body(form, "_method=delete&x=1"), Err(DropReason::RedactionFailed));
    let clean = body("application/json", r#"{"x":"50% off for hunter2%40shop.example"}"#).unwrap();
    assert!(!clean.contains("hunter2"), "{clean}");
}

#[test]
fn what_would_take_too_long_or_be_another_method_is_not_mirrored() {
    let form = "application/x-www-form-urlencoded";
    for text in ["a&".repeat(2000), "_method=delete".into(), "%5Fmethod=delete".into()] {
        assert_eq!(body(form, &text), Err(DropReason::RedactionFailed));
    }
    for text in [format!("[{}1]", "1,".repeat(4001)), r#"{"_method":"DELETE"}"#.into()] {
        assert_eq!(body("application/json", &text), Err(DropReason::RedactionFailed));
    }
}

#[test]
fn signs_alone_are_hidden_too() {
    assert_eq!(copy("/a?password=%21!%23", &[]).unwrap().uri(), "/a?password=*******");
    assert_eq!(body("application/json", r#"{"password":"!!**##"}"#).unwrap(), r#"{"password":"******"}"#);
}

#[test]
fn what_is_left_out_leaves_no_trace() {
    let query = |target| copy(target, &[]).unwrap().uri().to_string();
    assert_eq!(query("/a?removed=1"), "/a");
    assert_eq!(query("/a?x=1&removed=1"), "/a?x=1");
    assert_eq!(query("/a?removed=1&x=1"), "/a?x=1");
    assert_eq!(query("/a?x=1&removed=1;hunter2&y=2"), "/a?x=1&y=2");
}

#[test]
fn an_ordinary_query_of_graphql_is_left_alone() {
    let text =
        r#"{"query":"{ country(code: \"DE\") { capital email } }","variables":{"key":"colour","code":404}}"#;
    assert_eq!(body("application/json", text).unwrap(), text);
}

#[test]
fn a_form_is_read_like_a_query() {
    let clean = body(
        "application/x-www-form-urlencoded",
        "a=1&password=hunter2&street=hunter2+3&b=x%40hunter2.example",
    )
    .unwrap();
    assert!(clean.starts_with("a=1&password=") && !clean.contains("hunter2"), "{clean}");
}

#[test]
fn a_compressed_body_is_looked_into_and_a_bomb_is_not() {
    let pack = |text: &[u8]| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packer, text).unwrap();
        packer.finish().unwrap()
    };
    let clean = packed("application/json", "gzip", &pack(br#"{"token":"hunter2","x":"y"}"#)).unwrap();
    assert!(clean.contains("\"x\":\"y\"") && !clean.contains("hunter2"), "{clean}");
    assert_eq!(packed("application/json", "gzip", &pack(&[b' '; 100_000])), Err(DropReason::TooBig));
}

#[test]
fn a_body_that_no_rule_can_read_is_not_mirrored() {
    let deep = format!("{}1{}", "[".repeat(65), "]".repeat(65));
    let refused = [
        packed("text/plain", "identity", b"hunter2"),
        packed("multipart/form-data; boundary=x", "identity", b"--x"),
        packed("application/json; charset=utf-16", "identity", b"{}"),
        packed("application/json; charset = utf-16", "identity", b"{}"),
        packed("application/json; charset=utf-8; charset=utf-16", "identity", b"{}"),
        packed("application/x-www-form-urlencoded", "identity", b"p\0a\0=\0x\0"),
        packed("application/json", "br", b"{}"),
        packed("application/json", "gzip", b"{}"),
        body("application/json", r#"{"a":"#),
        body("application/json", r#"{"a":1} {"password":"hunter2"}"#),
        body("application/json", &deep),
        packed("application/json", "identity", b"\"\xff\""),
        body("application/x-www-form-urlencoded", "a=%zz"),
    ];
    assert!(refused.iter().all(|result| *result == Err(DropReason::RedactionFailed)), "{refused:?}");
    assert_eq!(body("application/json", &" ".repeat(10_001)), Err(DropReason::TooBig));
}

#[test]
fn json_within_json_is_followed_so_deep_and_hidden_beyond() {
    let mut text = r#"{"password":"hunter2"}"#.to_owned();
    for _layer in 0..8 {
        text = serde_json::json!({ "inner": text }).to_string();
        let clean = body("application/json", &text).unwrap();
        assert!(!clean.contains("hunter2"), "{clean}");
        assert!(serde_json::from_str::<serde_json::Value>(&clean).is_ok(), "{clean}");
    }
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(text in ".{0,200}", kind in "(application/json|application/x-www-form-urlencoded)") {
        drop(body(&kind, &text));
    }

    #[test]
    fn whatever_json_comes_json_goes_out(value in any_json()) {
        let clean = body("application/json", &value.to_string()).unwrap();
        prop_assert!(serde_json::from_str::<serde_json::Value>(&clean).is_ok(), "{}", clean);
    }

    #[test]
    fn no_request_makes_it_panic(target in "/[!-~]{0,80}", header in "[ -~]{0,80}") {
        if let Ok(request) = Request::builder().uri(target).header("cookie", header.as_str()).header("referer", header).body(()) {
            prop_assert!(redact_request(&redactor(), &request.into_parts().0).map_or(true, |copy| copy.uri().host().is_none()));
        }
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,20}".prop_map(serde_json::Value::String),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::Array),
            prop::collection::vec(("[a-z_]{1,8}", inner), 0..6)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}
