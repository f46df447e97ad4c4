//! Who may pull.

use super::*;

#[test]
fn basic_auth_wants_the_right_password() {
    let registry = Registry::start(content(), Options::with_basic("led", "lamp")).unwrap();
    let mut client = Client::new(registry.addr());
    let path = "/v2/led-acr/manifests/1.0";
    let answer = client.get(path);
    assert_eq!(
        (answer.status, &*error_code(&answer)),
        (401, "UNAUTHORIZED")
    );
    assert!(
        answer
            .header("www-authenticate")
            .unwrap()
            .starts_with("Basic realm=")
    );
    let wrong = [("Authorization", "Basic bGVkOmRhcms=")];
    assert_eq!(client.request("GET", path, &wrong).status, 401);
    assert_eq!(
        client
            .request("GET", path, &[("Authorization", BASIC)])
            .status,
        200
    );
    let seen: Vec<_> = registry
        .requests()
        .iter()
        .map(|request| request.authorized)
        .collect();
    assert_eq!(seen, [false, false, true]);
}

#[test]
fn a_token_is_asked_for_as_at_azure() {
    let registry = Registry::start(content(), Options::with_token("led", "lamp")).unwrap();
    let addr = registry.addr();
    let mut client = Client::new(addr);
    let path = "/v2/led-acr/manifests/1.0";
    assert_eq!(
        client.get(path).header("www-authenticate"),
        Some(&*format!(
            "Bearer realm=\"http://{addr}/oauth2/token\",service=\"{addr}\",\
             scope=\"repository:led-acr:pull\""
        ))
    );
    let endpoint = format!("/oauth2/token?service={addr}&scope=repository%3Aled-acr%3Apull");
    assert_eq!(client.get(&endpoint).status, 401, "no password");
    let wrong = [("Authorization", "Basic bGVkOmRhcms=")];
    assert_eq!(
        client.request("GET", &endpoint, &wrong).status,
        401,
        "wrong password"
    );
    let answer = client.request("GET", &endpoint, &[("Authorization", BASIC)]);
    let body = answer.json();
    assert!(
        body.get("token").is_none(),
        "Azure says access_token only: {body}"
    );
    let bearer = format!("Bearer {}", body["access_token"].as_str().unwrap());
    let bearer = [("Authorization", &*bearer)];
    assert_eq!(client.request("GET", path, &bearer).status, 200);
    assert_eq!(client.request("GET", "/v2/", &bearer).status, 200);

    let foreign = client.request("GET", "/v2/button-acr/manifests/1.0", &bearer);
    assert_eq!(foreign.status, 401);
    assert!(
        foreign
            .header("www-authenticate")
            .unwrap()
            .contains("insufficient_scope")
    );
    registry.expire_tokens();
    let expired = client.request("GET", path, &bearer);
    assert_eq!(expired.status, 401);
    assert!(
        expired
            .header("www-authenticate")
            .unwrap()
            .contains("invalid_token")
    );
    assert_eq!(
        client
            .request("GET", path, &[("Authorization", BASIC)])
            .status,
        401
    );
}

#[test]
fn a_token_is_given_for_a_form_as_well() {
    let registry = Registry::start(content(), Options::with_token("led", "lamp")).unwrap();
    let mut client = Client::new(registry.addr());
    let form = "grant_type=password&username=led&password=lamp&scope=repository%3Aled-acr%3Apull";
    let posted = client.post("/oauth2/token", form);
    assert!(posted.json()["access_token"].is_string());
    assert_eq!(
        client
            .post("/oauth2/token", &form.replace("lamp", "dark"))
            .status,
        401
    );
}

#[test]
fn tokens_expire_when_their_time_is_over() {
    let auth = TokenAuth {
        login: Login::new("led", "lamp"),
        style: TokenStyle::Token,
        lifetime: Some(Duration::ZERO),
    };
    let options = Options {
        auth: Auth::Token(auth),
        ..Options::default()
    };
    let registry = Registry::start(content(), options).unwrap();
    let mut client = Client::new(registry.addr());
    let endpoint = "/oauth2/token?scope=repository:led-acr:pull";
    let body = client
        .request("GET", endpoint, &[("Authorization", BASIC)])
        .json();
    assert_eq!(body["expires_in"], 0);
    let bearer = format!("Bearer {}", body["token"].as_str().unwrap());
    let answer = client.request("GET", "/v2/", &[("Authorization", &*bearer)]);
    assert_eq!(answer.status, 401);
}
