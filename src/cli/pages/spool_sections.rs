//! EXIT STATUS, FILES and SEE ALSO of the pages of `gatepost spool`.

use super::page_sections::{CONFIG, CONFIG_WITH_DATABASE, PageSections, SPOOL};

/// Returns the sections of the page of a command of `gatepost spool`.
pub(super) fn spool(action: &str) -> Option<PageSections> {
    let nothing = "Nothing was done: a daemon runs on the spool, a folder cannot be used, the arguments are unusable, or the configuration has errors.";
    let (success, failure, see_also): (_, _, &[_]) = match action {
        "" => (
            "The command succeeded.",
            "Something in the spool cannot be read; see the page of the command.",
            &[
                "gatepost-spool-check(1)",
                "gatepost-spool-repair(1)",
                "gatepost-spool-export(1)",
                "gatepost-spool-move(1)",
                "gatepost-spool-schema(1)",
                "gatepost-queue(1)",
            ],
        ),
        "check" => (
            "The spool is sound.",
            "There is damage, which the output names. Or the output cannot be written.",
            &["gatepost-spool(1)", "gatepost-spool-repair(1)"],
        ),
        "repair" => (
            "The spool is sound, and nothing is lost.",
            "The spool can be used, and the output names what is set aside, what is lost, and what remains. Or the output cannot be written. With --dry-run: there is damage.",
            &["gatepost-spool(1)", "gatepost-spool-check(1)"],
        ),
        "export" => (
            "All that waits is in the new folder.",
            "Something cannot be read, or a message goes by the connector of the user who sent it, which the earlier version would ignore; standard error names it, and the rest is in the new folder. Or the output cannot be written.",
            &["gatepost-spool(1)", "gatepost-queue(1)"],
        ),
        "move" => (
            "All that waited is in its new place.",
            "Something cannot be read, or running relays own messages; the output names it, and the rest is in its new place. Or the output cannot be written.",
            &["gatepost-spool(1)", "gatepost-node(1)", "gatepost-queue(1)"],
        ),
        "schema" => {
            return Some(PageSections::new(
                vec![
                    (0, "The SQL was printed."),
                    (1, "The output cannot be written."),
                    (2, "The arguments are unusable."),
                ],
                &[CONFIG_WITH_DATABASE],
                &["gatepost-spool(1)", "gatepost.toml(5)", "psql(1)"],
            ));
        }
        _ => return None,
    };
    Some(PageSections::new(
        vec![(0, success), (1, failure), (2, nothing)],
        &[CONFIG, SPOOL],
        see_also,
    ))
}
