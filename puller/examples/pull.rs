//! `pull REFERENCE DIRECTORY [--user NAME --password TEXT] [--platform OS/ARCH[/VARIANT]]
//! [--plain-http HOST]`: pulls an image into a store and prints what it cost, for comparing with
//! `skopeo copy` and `umoci unpack`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a program"
)]

use std::collections::HashMap;
use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use kobune_puller::{
    Credentials, Platform, PullRequest, Puller, PullerConfig, Secret, Store, parse_reference,
};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut next = Some(&*error as &dyn Error);
            while let Some(error) = next {
                eprintln!("pull: {error}");
                next = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut names = Vec::new();
    let mut options = HashMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("--") {
            Some(name) => {
                let value = arguments.next().ok_or("an option needs a value")?;
                options.insert(name.to_owned(), value);
            }
            None => names.push(argument),
        }
    }
    let [reference, directory] = names.as_slice() else {
        return Err("usage: pull REFERENCE DIRECTORY [--user NAME --password TEXT]".into());
    };
    let credentials = options.get("user").map(|user| Credentials {
        username: user.clone(),
        password: Secret::new(options.get("password").cloned().unwrap_or_default()),
    });
    let mut config = PullerConfig::new(Store::open(directory)?);
    config.plain_http.extend(options.get("plain-http").cloned());
    if let Some(bytes) = options.get("spool-from") {
        config.spool_from = Some(bytes.parse()?);
    }
    let request = PullRequest {
        reference: parse_reference(reference)?,
        credentials,
        platform: match options.get("platform") {
            Some(text) => text.parse()?,
            None => Platform::host(),
        },
    };
    let begin = Instant::now();
    let puller = Puller::new(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let image = runtime.block_on(puller.pull(&request, &()))?;
    let wall = begin.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds = |time: nix::sys::time::TimeVal| time.num_microseconds() as f64 / 1e6;
    let (user, system) = (seconds(usage.user_time()), seconds(usage.system_time()));
    println!("image  {}\nid     {}", image.manifest_digest, image.id);
    for layer in &image.layers {
        println!("layer  {}", layer.display());
    }
    println!("bytes  {}", image.size);
    println!("wall   {wall:.2} s");
    println!(
        "cpu    {:.2} s ({user:.2} user, {system:.2} system)",
        user + system
    );
    println!(
        "rss    {:.1} MiB at its highest",
        usage.max_rss() as f64 / 1024.0
    );
    Ok(())
}
