//! What to ask a token server, from a registry's challenge (distribution, "Token Authentication
//! Specification" and "OAuth2 Token Authentication"). Pure.

use reqwest::Url;

use super::challenge::Challenge;
use crate::credentials::{Credentials, IDENTITY};

/// What we are called towards token servers, which want a name.
const CLIENT: &str = "kobune";

/// Where to ask for a token, and for what; nothing if the challenge names no address. A challenge
/// without a scope is completed, one with a scope is believed: some registries name another
/// repository than ours, which theirs is an alias of.
pub(crate) fn token_url(
    bearer: &Challenge,
    repository: &str,
    credentials: Option<&Credentials>,
) -> Option<Url> {
    let mut url = Url::parse(bearer.parameter("realm")?).ok()?;
    let own = format!("repository:{repository}:pull");
    let mut query = url.query_pairs_mut();
    if let Some(service) = bearer.parameter("service") {
        query.append_pair("service", service);
    }
    let scope = bearer.parameter("scope").filter(|scope| !scope.is_empty());
    query.append_pair("scope", scope.unwrap_or(&own));
    if let Some(login) = credentials.filter(|login| login.username != IDENTITY) {
        query.append_pair("account", &login.username);
    }
    drop(query);
    Some(url)
}

/// The same question with an identity token: where to post, and which form.
pub(crate) fn exchange(mut url: Url, identity: &Credentials) -> (Url, String) {
    url.query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", CLIENT)
        .append_pair("refresh_token", identity.password.expose());
    let form = url.query().unwrap_or_default().to_owned();
    url.set_query(None);
    (url, form)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::challenge::parse;
    use crate::credentials::Secret;

    fn login(username: &str) -> Credentials {
        Credentials {
            username: username.into(),
            password: Secret::new("p&q"),
        }
    }

    /// The forms in which registries' documentation shows their challenges.
    #[test]
    fn public_registries_are_asked_as_they_want_it() {
        for (registry, header, user, expected) in [
            (
                "Docker Hub",
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/app:pull""#,
                None,
                "https://auth.docker.io/token?service=registry.docker.io&scope=repository%3Alibrary%2Fapp%3Apull",
            ),
            (
                "GitHub",
                r#"Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:user/image:pull""#,
                Some("me"),
                "https://ghcr.io/token?service=ghcr.io&scope=repository%3Auser%2Fimage%3Apull&account=me",
            ),
            (
                "Google, without a scope",
                r#"Bearer realm="https://gcr.io/v2/token",service="gcr.io""#,
                Some("_json_key"),
                "https://gcr.io/v2/token?service=gcr.io&scope=repository%3Aour%2Fapp%3Apull&account=_json_key",
            ),
            (
                "Google's Artifact Registry, with an empty scope",
                r#"Bearer realm="https://europe-docker.pkg.dev/v2/token",service="europe-docker.pkg.dev",scope="""#,
                None,
                "https://europe-docker.pkg.dev/v2/token?service=europe-docker.pkg.dev&scope=repository%3Aour%2Fapp%3Apull",
            ),
            (
                "Quay",
                r#"Bearer realm="https://quay.io/v2/auth",service="quay.io",scope="repository:org/app:pull""#,
                Some("org+robot"),
                "https://quay.io/v2/auth?service=quay.io&scope=repository%3Aorg%2Fapp%3Apull&account=org%2Brobot",
            ),
            (
                "Azure",
                r#"Bearer realm="https://acme.azurecr.io/oauth2/token",service="acme.azurecr.io",scope="repository:led:pull""#,
                Some("00000000-0000-0000-0000-000000000000"),
                "https://acme.azurecr.io/oauth2/token?service=acme.azurecr.io&scope=repository%3Aled%3Apull&account=00000000-0000-0000-0000-000000000000",
            ),
            (
                "GitLab, its realm with a query",
                r#"Bearer realm="https://gitlab.com/jwt/auth?x=1",service="container_registry",scope="repository:g/p:pull",error="invalid_token""#,
                None,
                "https://gitlab.com/jwt/auth?x=1&service=container_registry&scope=repository%3Ag%2Fp%3Apull",
            ),
            (
                "Harbor, without a service",
                r#"Bearer realm="https://harbor.lan/service/token""#,
                Some("robot$led"),
                "https://harbor.lan/service/token?scope=repository%3Aour%2Fapp%3Apull&account=robot%24led",
            ),
        ] {
            let challenges = parse(header);
            let credentials = user.map(login);
            let url = token_url(&challenges[0], "our/app", credentials.as_ref()).expect(registry);
            assert_eq!(url.as_str(), expected, "{registry}");
        }
        // Amazon's has no tokens of this kind: user `AWS`, and a password for twelve hours.
        let amazon = r#"Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com""#;
        assert_eq!(parse(amazon)[0].scheme, "basic");
        for header in ["Bearer", r#"Bearer realm="""#, r#"Bearer realm="/token""#] {
            assert_eq!(token_url(&parse(header)[0], "app", None), None, "{header}");
        }
    }

    #[test]
    fn an_identity_token_is_posted_and_in_no_address() {
        let header = r#"Bearer realm="https://acme.azurecr.io/oauth2/token",service="acme.azurecr.io",scope="repository:led:pull""#;
        let identity = login(IDENTITY);
        let url = token_url(&parse(header)[0], "led", Some(&identity)).expect("an address");
        let (url, form) = exchange(url, &identity);
        assert_eq!(url.as_str(), "https://acme.azurecr.io/oauth2/token");
        assert_eq!(
            form,
            "service=acme.azurecr.io&scope=repository%3Aled%3Apull&grant_type=refresh_token&client_id=kobune&refresh_token=p%26q"
        );
    }
}
