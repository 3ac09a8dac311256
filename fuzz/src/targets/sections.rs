//! Inputs of several files: each begins with a line `=== NAME`.

const MARK: &[u8] = b"=== ";

/// The files of an input, with their names, in order.
pub(crate) fn split(input: &[u8]) -> Vec<(String, &[u8])> {
    let starts: Vec<usize> = (0..input.len())
        .filter(|&at| input[at..].starts_with(MARK) && (at == 0 || input[at - 1] == b'\n'))
        .collect();
    let ends = starts.iter().skip(1).copied().chain([input.len()]);
    let section = |(start, end): (&usize, usize)| {
        let section = &input[start + MARK.len()..end];
        let line = section
            .iter()
            .position(|&byte| byte == b'\n')
            .unwrap_or(section.len());
        let name = String::from_utf8_lossy(&section[..line]).into_owned();
        let body = section.get(line + 1..).unwrap_or_default();
        // The line break before the next mark belongs to the mark.
        let body = if end < input.len() {
            body.strip_suffix(b"\n").unwrap_or(body)
        } else {
            body
        };
        (name, body)
    };
    starts.iter().zip(ends).map(section).collect()
}

/// An input of such files.
pub(crate) fn join<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let files = files.into_iter();
    let sections = files.map(|(name, body)| [MARK, name.as_bytes(), b"\n", body].concat());
    sections.collect::<Vec<_>>().join(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_can_be_split() {
        let files: [(&str, &[u8]); 4] = [
            ("a", b"one\ntwo\n"),
            ("b/c", b""),
            ("d", b"\0=== x"),
            ("e", b"\n"),
        ];
        let joined = join(files);
        let split: Vec<_> = split(&joined);
        let split: Vec<_> = split
            .iter()
            .map(|(name, body)| (name.as_str(), *body))
            .collect();
        assert_eq!(split, files);
    }
}
