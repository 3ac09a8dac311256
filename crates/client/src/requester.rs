//! Who asks: the user of the operating system, not what a variable claims.

/// The name of this process's user, or its number where it has none.
pub(crate) fn name() -> String {
    let user = rustix::process::getuid().as_raw();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    named(&accounts, user).unwrap_or_else(|| format!("uid-{user}"))
}

/// The name of a user in a file like `/etc/passwd` (passwd(5)).
fn named(accounts: &str, user: u32) -> Option<String> {
    let id = user.to_string();
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(id.as_str()) && !name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn a_user_is_named_as_the_account_file_names_it() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(named(accounts, 1000).as_deref(), Some("ada"));
        assert_eq!(named(accounts, 7), None);
        assert_eq!(named(":x:7:7::/:/bin/sh\nbroken", 7), None);
    }
}
