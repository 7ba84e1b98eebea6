//! Finds the comments and the string literals of a source file. `syn` drops comments that are no
//! doc comments, and does not parse the arguments of macros, so this is a small lexer of its own:
//! it knows comments, strings, raw strings, characters and lifetimes, and skips the rest.

/// One line of a comment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Comment {
    /// Counted from 1.
    pub line: usize,
    /// How many characters are before it in its line.
    pub column: usize,
    /// From the slashes to the end of the line.
    pub text: String,
}

impl Comment {
    /// Whether rustdoc shows it.
    pub(crate) fn is_doc(&self) -> bool {
        (self.text.starts_with("///") && !self.text.starts_with("////")) || self.text.starts_with("//!")
    }

    /// The prose of a line comment, without the slashes.
    pub(crate) fn prose(&self) -> &str {
        self.text.trim_start_matches(['/', '!', '*']).trim()
    }
}

/// A string literal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Literal {
    /// Where it begins, counted from 1.
    pub line: usize,
    /// As it is written, between the quotes.
    pub text: String,
}

/// All comments of `text`, a block comment line by line.
pub(crate) fn comments(text: &str) -> Vec<Comment> {
    Lexer::run(text).found
}

/// The comments of a shell script that have a line of their own, with their numbers; not the line
/// `#!`, which names the interpreter.
pub(crate) fn hash_comments(text: &str) -> Vec<(usize, &str)> {
    let is_comment = |line: &str| line.trim_start().starts_with('#') && !line.starts_with("#!");
    (1..).zip(text.lines()).filter(|(_, line)| is_comment(line)).collect()
}

/// All string literals of `text`.
pub(crate) fn literals(text: &str) -> Vec<Literal> {
    Lexer::run(text).literals
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    line_start: usize,
    found: Vec<Comment>,
    literals: Vec<Literal>,
}

impl Lexer {
    fn run(text: &str) -> Self {
        let chars = text.chars().collect();
        let mut lexer = Self { chars, at: 0, line: 1, line_start: 0, found: Vec::new(), literals: Vec::new() };
        while let Some(c) = lexer.peek(0) {
            match (c, lexer.peek(1)) {
                ('/', Some('/')) => lexer.line_comment(),
                ('/', Some('*')) => lexer.block_comment(),
                ('"', _) => lexer.string(),
                ('\'', _) => lexer.character(),
                ('r', _) if lexer.is_raw_string() => lexer.raw_string(),
                _ if is_word(c) => lexer.word(),
                _ => lexer.step(),
            }
        }
        lexer
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn step(&mut self) {
        if self.peek(0) == Some('\n') {
            self.line += 1;
            self.line_start = self.at + 1;
        }
        self.at += 1;
    }

    fn add(&mut self, start: usize) {
        let text: String = self.chars[start..self.at].iter().collect();
        self.found.push(Comment { line: self.line, column: start - self.line_start, text: text.trim_end().to_owned() });
    }

    fn line_comment(&mut self) {
        let start = self.at;
        while self.peek(0).is_some_and(|c| c != '\n') {
            self.at += 1;
        }
        self.add(start);
    }

    fn block_comment(&mut self) {
        let (mut start, mut depth) = (self.at, 0);
        loop {
            match (self.peek(0), self.peek(1)) {
                (None, _) => break,
                (Some('/'), Some('*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (Some('*'), Some('/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        break;
                    }
                }
                (Some('\n'), _) => {
                    self.add(start);
                    self.step();
                    start = self.at;
                }
                _ => self.step(),
            }
        }
        self.add(start);
    }

    fn add_literal(&mut self, line: usize, start: usize, end: usize) {
        self.literals.push(Literal { line, text: self.chars[start..end].iter().collect() });
    }

    fn string(&mut self) {
        let (line, start) = (self.line, self.at + 1);
        self.step();
        while let Some(c) = self.peek(0) {
            self.step();
            match c {
                '\\' => self.step(),
                '"' => return self.add_literal(line, start, self.at - 1),
                _ => {}
            }
        }
    }

    /// A character, or a lifetime, which has no closing quote.
    fn character(&mut self) {
        let is_lifetime = self.peek(1).is_some_and(is_word) && self.peek(2) != Some('\'');
        self.step();
        if is_lifetime {
            return;
        }
        if self.peek(0) == Some('\\') {
            self.step();
        }
        self.step();
        // An escape may be longer than one character: '\u{1F600}'.
        while self.peek(0).is_some_and(|c| c != '\'') {
            self.step();
        }
        self.step();
    }

    /// At an `r`: whether hashes and a quote follow, unlike in `r#type`.
    fn is_raw_string(&self) -> bool {
        let hashes = self.chars[self.at + 1..].iter().take_while(|c| **c == '#').count();
        self.peek(1 + hashes) == Some('"')
    }

    fn raw_string(&mut self) {
        let line = self.line;
        self.step();
        let mut hashes = 0;
        while self.peek(0) == Some('#') {
            hashes += 1;
            self.step();
        }
        self.step();
        let start = self.at;
        while let Some(c) = self.peek(0) {
            self.step();
            if c == '"' && (0..hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                self.add_literal(line, start, self.at - 1);
                self.at += hashes;
                return;
            }
        }
    }

    /// A name or number; stops before the `r` of `br"…"` and `cr"…"`.
    fn word(&mut self) {
        while self.peek(0).is_some_and(is_word) {
            self.step();
            if self.peek(0) == Some('r') && self.is_raw_string() {
                return;
            }
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[test]
fn comments_and_literals_are_told_apart() {
    let text = r###"
//! module
fn f<'a>(x: &'a str) -> char { // trailing
    let no = "// no \" // no"; let raw = r#"// no " // no"#; let b = br"// no \"; '"' // after a quote
    /* block
       of two lines /* nested */ */
    'x'; '\''; '\u{2026}'; r#type // last
}
"###;
    let found: Vec<_> = comments(text).into_iter().map(|comment| (comment.line, comment.text)).collect();
    let expected = [
        (2, "//! module"),
        (3, "// trailing"),
        (4, "// after a quote"),
        (5, "/* block"),
        (6, "       of two lines /* nested */ */"),
        (7, "// last"),
    ];
    assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())));
    let literals: Vec<_> = literals(text).into_iter().map(|literal| (literal.line, literal.text)).collect();
    let expected = ["// no \\\" // no", "// no \" // no", "// no \\"];
    assert_eq!(literals, expected.map(|text| (4, text.to_owned())));
    assert_eq!(comments("    // x").first().map(|comment| comment.column), Some(4));
}
