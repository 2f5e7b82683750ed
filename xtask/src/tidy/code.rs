//! Tells the code of a Rust file from its comments and texts, well enough to look for words in either.

/// A file taken apart. Both parts are as long as the file, with spaces in the place of what belongs elsewhere, so
/// that an offset means the same in all three.
pub(super) struct Parts {
    /// What the compiler compiles, with texts left blank.
    pub(super) code: String,
    /// What the reader reads.
    pub(super) comments: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Code,
    Comment,
    Text,
}

/// Takes a file apart.
pub(super) fn parts(source: &str) -> Parts {
    let mut parts = Parts { code: String::new(), comments: String::new() };
    let mut rest = source;
    while !rest.is_empty() {
        let (kind, length) = next(rest, parts.code.chars().next_back());
        let (piece, after) = rest.split_at(length);
        for c in piece.chars() {
            let blank = if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) };
            let push = |part: &mut String, is_here: bool| {
                if is_here { part.push(c) } else { part.push_str(&blank) }
            };
            push(&mut parts.code, kind == Kind::Code);
            push(&mut parts.comments, kind == Kind::Comment);
        }
        rest = after;
    }
    parts
}

/// The kind and the length in bytes of what stands at the start of `rest`; `before` is the code character before.
fn next(rest: &str, before: Option<char>) -> (Kind, usize) {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if rest.starts_with("//") {
        return (Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Kind::Comment, block_comment(rest));
    }
    if rest.starts_with('"') {
        return (Kind::Text, quoted(rest));
    }
    if !before.is_some_and(is_word)
        && let Some(length) = raw_text(rest)
    {
        return (Kind::Text, length);
    }
    if rest.starts_with('\'')
        && let Some(length) = character(rest)
    {
        return (Kind::Text, length);
    }
    (Kind::Code, rest.chars().next().map_or(1, char::len_utf8))
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn quoted(rest: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#` and their byte and C brothers.
fn raw_text(rest: &str) -> Option<usize> {
    let prefix = ["r", "br", "cr"].into_iter().find(|prefix| rest.starts_with(prefix))?;
    let after = &rest[prefix.len()..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    if !after[hashes..].starts_with('"') {
        return None;
    }
    let open = prefix.len() + hashes + 1;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len()))
}

/// `'x'` or `'\n'`, but not the lifetime `'x`.
fn character(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next()?;
        return chars.find(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
    }
    chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1)
}

/// Offsets of `word` in `text` where no letter, digit or `_` stands beside it.
pub(super) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = text[..*at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The line, from 1, of an offset.
pub(super) fn line(text: &str, offset: usize) -> usize {
    1 + text[..offset].matches('\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, code: &str, comments: &str) {
        let parts = parts(source);
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!((parts.code.len(), parts.comments.len()), (source.len(), source.len()), "{source}");
        assert_eq!((squeezed(&parts.code).as_str(), squeezed(&parts.comments).as_str()), (code, comments));
    }

    #[test]
    fn code_comments_and_texts_are_told_apart() {
        check("let a = 1; // why ä\nlet b;", "let a = 1; let b;", "// why ä");
        check("a /* x /* y */ z */ b", "a b", "/* x /* y */ z */");
        check(r#"f("// no \" comment"); g"#, "f( ); g", "");
        check(r##"f(r#"a " // b"#, br"c"); g"##, "f( , ); g", "");
        check("fn f<'a>(x: &'a str) { '\"'; '\\''; '/'; }", "fn f<'a>(x: &'a str) { ; ; ; }", "");
        check("for\"x\" r#type", "for r#type", "");
    }

    #[test]
    fn what_is_not_closed_reaches_to_the_end() {
        check("a \"b", "a", "");
        check("a /* b", "a", "/* b");
        check("a r#\"b\"", "a", "");
    }

    #[test]
    fn words_stand_alone() {
        assert_eq!(words("unsafe_code unsafe unsafely", "unsafe").collect::<Vec<_>>(), [12]);
        assert_eq!(line("a\nb\nc", 4), 3);
    }
}
