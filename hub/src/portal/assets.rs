//! The portal's pages, as they lie in the program.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{Response, StatusCode};

/// The file of a path.
pub(super) fn page(path: &str) -> Response<Full<Bytes>> {
    let (kind, text) = match path {
        "/portal/" => ("text/html", include_str!("web/index.html")),
        "/portal/portal.css" => ("text/css", include_str!("web/portal.css")),
        "/portal/portal.js" => ("text/javascript", include_str!("web/portal.js")),
        "/portal/device.js" => ("text/javascript", include_str!("web/device.js")),
        "/portal/devices.js" => ("text/javascript", include_str!("web/devices.js")),
        "/portal/fleet.js" => ("text/javascript", include_str!("web/fleet.js")),
        "/portal/events.js" => ("text/javascript", include_str!("web/events.js")),
        "/portal/keys.js" => ("text/javascript", include_str!("web/keys.js")),
        "/portal/page.js" => ("text/javascript", include_str!("web/page.js")),
        "/portal" => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            let to = HeaderValue::from_static("/portal/");
            response.headers_mut().insert(LOCATION, to);
            return response;
        }
        _ => return super::refused(StatusCode::NOT_FOUND, "there is nothing here"),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    if let Ok(kind) = HeaderValue::from_str(&format!("{kind}; charset=utf-8")) {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}
