//! From words to a query, by recursive descent.

use serde_json::Value;

use super::lexer::{Token, tokens};
use super::{Condition, Operator, Path, Query, QueryError, Selection, Source};

/// Longest query in bytes.
const TEXT_MAX: usize = 8192;
/// Deepest nesting of a condition.
const DEPTH_MAX: usize = 32;

/// Reads a query.
///
/// # Errors
/// [`QueryError`] with the place where it stops making sense.
pub(crate) fn parse(text: &str) -> Result<Query> {
    let mut parser = Parser::new(text)?;
    let query = parser.query()?;
    match parser.peek() {
        None => Ok(query),
        Some(_) => Err(parser.error("the end")),
    }
}

/// Reads a condition as configurations have it: alone, or after `FROM ... WHERE`.
///
/// # Errors
/// [`QueryError`] with the place where it stops making sense.
pub(crate) fn parse_target(text: &str) -> Result<(Source, Condition)> {
    let mut parser = Parser::new(text)?;
    let mut source = Source::Devices;
    if parser.is_keyword("FROM") {
        source = parser.source()?;
        parser.keyword("WHERE", "WHERE")?;
    }
    let condition = parser.either()?;
    match parser.peek() {
        None => Ok((source, condition)),
        Some(_) => Err(parser.error("the end")),
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

type Result<T> = std::result::Result<T, QueryError>;

impl Parser {
    fn new(text: &str) -> Result<Self> {
        if text.len() > TEXT_MAX {
            return Err(QueryError::new(
                "its length",
                "a query of 8192 bytes at most",
            ));
        }
        Ok(Self {
            tokens: tokens(text)?,
            next: 0,
            depth: 0,
        })
    }

    fn query(&mut self) -> Result<Query> {
        self.keyword("SELECT", "SELECT")?;
        let selection = self.selection()?;
        self.keyword("FROM", "FROM")?;
        let source = self.source()?;
        let condition = match self.is_keyword("WHERE") {
            true => Some(self.either()?),
            false => None,
        };
        Ok(Query {
            source,
            selection,
            condition,
        })
    }

    fn source(&mut self) -> Result<Source> {
        match self.word("devices or devices.modules")?.as_str() {
            "devices" => Ok(Source::Devices),
            "devices.modules" => Ok(Source::Modules),
            _ => {
                self.next -= 1;
                Err(self.error("devices or devices.modules"))
            }
        }
    }

    fn selection(&mut self) -> Result<Selection> {
        if self.is_sign("*") {
            return Ok(Selection::All);
        }
        if self.is_keyword("COUNT") {
            self.sign("(", "an opening parenthesis")?;
            self.is_sign("*");
            self.sign(")", "a closing parenthesis")?;
            let name = self.alias()?.unwrap_or_else(|| "count".to_owned());
            return Ok(Selection::Count(name));
        }
        let mut paths = Vec::new();
        loop {
            let path = self.path()?;
            let last = path.last().cloned().unwrap_or_default();
            paths.push((self.alias()?.unwrap_or(last), path));
            if !self.is_sign(",") {
                return Ok(Selection::Paths(paths));
            }
        }
    }

    fn alias(&mut self) -> Result<Option<String>> {
        match self.is_keyword("AS") {
            true => self.word("a name").map(Some),
            false => Ok(None),
        }
    }

    fn either(&mut self) -> Result<Condition> {
        let mut left = self.both()?;
        while self.is_keyword("OR") {
            left = Condition::Or(Box::new(left), Box::new(self.both()?));
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Condition> {
        let mut left = self.single()?;
        while self.is_keyword("AND") {
            left = Condition::And(Box::new(left), Box::new(self.single()?));
        }
        Ok(left)
    }

    fn single(&mut self) -> Result<Condition> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error("a condition that is nested less"));
        }
        let condition = self.nested();
        self.depth -= 1;
        condition
    }

    fn nested(&mut self) -> Result<Condition> {
        if self.is_keyword("NOT") {
            return Ok(Condition::Not(Box::new(self.single()?)));
        }
        if self.is_sign("(") {
            let inner = self.either()?;
            self.sign(")", "a closing parenthesis")?;
            return Ok(inner);
        }
        if self.is_keyword("IS_DEFINED") {
            self.sign("(", "an opening parenthesis")?;
            let path = self.path()?;
            self.sign(")", "a closing parenthesis")?;
            return Ok(Condition::IsDefined(path));
        }
        let path = self.path()?;
        if self.is_keyword("IN") {
            return Ok(Condition::In(path, self.list()?));
        }
        let operator = self.operator()?;
        if matches!(self.peek(), Some(Token::Word(word)) if word.contains('.')) {
            return Ok(Condition::ComparePaths(path, operator, self.path()?));
        }
        Ok(Condition::Compare(path, operator, self.literal()?))
    }

    fn list(&mut self) -> Result<Vec<Value>> {
        self.sign("[", "an opening bracket")?;
        let mut literals = vec![self.literal()?];
        while self.is_sign(",") {
            literals.push(self.literal()?);
        }
        self.sign("]", "a closing bracket")?;
        Ok(literals)
    }

    fn operator(&mut self) -> Result<Operator> {
        let operator = match self.peek() {
            Some(Token::Sign("=")) => Operator::Equal,
            Some(Token::Sign("<>" | "!=")) => Operator::NotEqual,
            Some(Token::Sign("<")) => Operator::Less,
            Some(Token::Sign("<=")) => Operator::LessOrEqual,
            Some(Token::Sign(">")) => Operator::Greater,
            Some(Token::Sign(">=")) => Operator::GreaterOrEqual,
            _ => return Err(self.error("an operator")),
        };
        self.next += 1;
        Ok(operator)
    }

    fn literal(&mut self) -> Result<Value> {
        let value = match self.peek() {
            Some(Token::Literal(value)) => value.clone(),
            Some(Token::Word(word)) => match word.to_ascii_lowercase().as_str() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                "null" => Value::Null,
                _ => return Err(self.error("a literal")),
            },
            _ => return Err(self.error("a literal")),
        };
        self.next += 1;
        Ok(value)
    }

    /// A path; `devices.` before it says nothing.
    fn path(&mut self) -> Result<Path> {
        let word = self.word("a condition or a path")?;
        let names: Path = word.split('.').map(str::to_owned).collect();
        let from = usize::from(names.len() > 1 && names[0] == "devices");
        if names.iter().any(String::is_empty) {
            self.next -= 1;
            return Err(self.error("a path"));
        }
        Ok(names[from..].to_vec())
    }

    fn word(&mut self, expected: &'static str) -> Result<String> {
        match self.peek() {
            Some(Token::Word(word)) => {
                let word = word.clone();
                self.next += 1;
                Ok(word)
            }
            _ => Err(self.error(expected)),
        }
    }

    fn keyword(&mut self, keyword: &str, expected: &'static str) -> Result<()> {
        match self.is_keyword(keyword) {
            true => Ok(()),
            false => Err(self.error(expected)),
        }
    }

    fn is_keyword(&mut self, keyword: &str) -> bool {
        let is = matches!(self.peek(), Some(Token::Word(w)) if w.eq_ignore_ascii_case(keyword));
        self.next += usize::from(is);
        is
    }

    fn sign(&mut self, sign: &str, expected: &'static str) -> Result<()> {
        match self.is_sign(sign) {
            true => Ok(()),
            false => Err(self.error(expected)),
        }
    }

    fn is_sign(&mut self, sign: &str) -> bool {
        let is = matches!(self.peek(), Some(Token::Sign(own)) if *own == sign);
        self.next += usize::from(is);
        is
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    fn error(&self, expected: &'static str) -> QueryError {
        let at = match self.peek() {
            None => "the end".to_owned(),
            Some(Token::Word(word)) => format!("{word:?}"),
            Some(Token::Literal(value)) => value.to_string(),
            Some(Token::Sign(sign)) => format!("{sign:?}"),
        };
        QueryError::new(&at, expected)
    }
}
