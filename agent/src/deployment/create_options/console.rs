//! `Tty`, `OpenStdin`, `StdinOnce` and `ConsoleSize`.

use kobune_runtime::{Console, WindowSize};

use super::super::fields::{Fault, Fields, Findings, Node};

/// What has no effect without another field is left out, as Docker has it: two options
/// that ask for the same are equal.
pub(super) fn parse(
    top: &mut Fields<'_>,
    host: Option<&mut Fields<'_>>,
    findings: &mut Findings,
) -> Console {
    let mut flag = |name| findings.read(top.take(name), Node::boolean) == Some(true);
    let (terminal, stdin, once) = (flag("tty"), flag("openstdin"), flag("stdinonce"));
    let size = host.and_then(|host| findings.read(host.take("consolesize"), window_size));
    Console {
        terminal,
        size: size.flatten().filter(|_| terminal),
        stdin,
        stdin_once: stdin && once && !terminal,
    }
}

/// `[rows, columns]`; none or two zeros are as the kernel makes it.
fn window_size(node: &Node<'_>) -> Result<Option<WindowSize>, Fault> {
    let numbers: Vec<i64> = node
        .list()?
        .iter()
        .map(Node::integer)
        .collect::<Result<_, _>>()?;
    let number = |number: i64| u16::try_from(number).ok();
    let size = match numbers[..] {
        [] | [0, 0] => return Ok(None),
        [rows, columns] => number(rows).zip(number(columns)),
        _ => None,
    };
    let (rows, columns) = size.ok_or_else(|| node.fault("must be rows and columns"))?;
    Ok(Some(WindowSize { rows, columns }))
}
