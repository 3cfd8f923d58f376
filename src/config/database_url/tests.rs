//! Tests of URLs of databases.

use super::*;

#[test]
fn urls_are_written_as_they_are_read() {
    for (text, written) in [
        (
            "postgresql://gatepost@db.example.com/mail",
            "postgresql://gatepost@db.example.com:5432/mail",
        ),
        (
            "POSTGRES://gatepost@db1.example.com:5433,db2.example.com/mail?target_session_attrs=read-write",
            "postgresql://gatepost@db1.example.com:5433,db2.example.com:5432/mail",
        ),
        (
            "postgresql://gatepost@127.0.0.1,[::1]:7/mail",
            "postgresql://gatepost@127.0.0.1:5432,[::1]:7/mail",
        ),
        (
            "postgresql://g@localhost/mail?sslmode=disable",
            "postgresql://g@localhost:5432/mail?sslmode=disable",
        ),
        (
            "postgresql://g@localhost/mail?sslmode=verify-full",
            "postgresql://g@localhost:5432/mail?sslmode=verify-full",
        ),
        (
            "postgresql://g@/mail?host=/run/postgresql",
            "postgresql://g@%2Frun%2Fpostgresql:5432/mail",
        ),
        (
            "postgresql://g@/mail?host=%2Frun%2Fpg&port=5433",
            "postgresql://g@%2Frun%2Fpg:5433/mail",
        ),
        (
            "postgresql://g@%2Frun%2Fpg:5433,localhost/mail",
            "postgresql://g@%2Frun%2Fpg:5433,localhost:5432/mail",
        ),
        (
            "postgresql://m%40il%3A@h.example/m%C3%A4il",
            "postgresql://m%40il%3A@h.example:5432/m%C3%A4il",
        ),
    ] {
        let url = DatabaseUrl::parse(text).expect(text);
        assert_eq!(url.to_string(), written);
        assert_eq!(DatabaseUrl::parse(written), Ok(url), "{written}");
    }
}

#[test]
fn urls_that_are_unfit_for_a_relay_are_refused() {
    use DatabaseUrlError as E;
    for (text, error) in [
        ("", E::Scheme),
        ("gatepost@db.example.com/mail", E::Scheme),
        ("mysql://gatepost@db.example.com/mail", E::Scheme),
        (
            "postgresql://gatepost:secret@db.example.com/mail",
            E::Password,
        ),
        (
            "postgresql://gatepost:pa/ss?wo#rd@db.example.com/mail",
            E::Password,
        ),
        ("mysql://gatepost:secret@db.example.com/mail", E::Password),
        (
            "postgresql://g@db.example.com/mail?password=secret",
            E::Password,
        ),
        (
            "postgresql://g@db.example.com/mail?passfile=/x",
            E::Password,
        ),
        ("postgresql://db.example.com/mail", E::User),
        ("postgresql://@db.example.com/mail", E::User),
        ("postgresql://g%0a@db.example.com/mail", E::User),
        ("postgresql://g%zz@db.example.com/mail", E::User),
        ("postgresql://g%ff@db.example.com/mail", E::User),
        ("postgresql://g@/mail", E::NoHost),
        (
            "postgresql://g@db.example.com/mail?host=/run/postgresql",
            E::TwoHosts,
        ),
        ("postgresql://g@/mail?host=db.example.com", E::Host),
        ("postgresql://g@a..b/mail", E::Host),
        ("postgresql://g@one,,two/mail", E::Host),
        ("postgresql://g@db.example.com:/mail", E::Host),
        ("postgresql://g@db.example.com:0/mail", E::Host),
        ("postgresql://g@db.example.com:+5/mail", E::Host),
        ("postgresql://g@db.example.com:65536/mail", E::Host),
        ("postgresql://g@[::1/mail", E::Host),
        ("postgresql://g@[127.0.0.1]/mail", E::Host),
        ("postgresql://g@db.example.com", E::Database),
        ("postgresql://g@db.example.com/", E::Database),
        ("postgresql://g@db.example.com/a/b", E::Database),
    ] {
        assert_eq!(DatabaseUrl::parse(text), Err(error), "{text}");
    }
    let long = format!("postgresql://{}@localhost/mail", "g".repeat(64));
    assert_eq!(DatabaseUrl::parse(&long), Err(E::User));
}

#[test]
fn parameters_that_are_unfit_for_a_relay_are_refused() {
    use DatabaseUrlError as E;
    for (text, error) in [
        ("postgresql://g@db.example.com/mail#x", E::Database),
        ("postgresql://g@db.example.com/mail?x", E::Parameter),
        ("postgresql://g@db.example.com/mail?port=1", E::Parameter),
        (
            "postgresql://g@localhost/mail?sslmode=disable&sslmode=disable",
            E::Parameter,
        ),
        ("postgresql://g@localhost/mail?sslmode=off", E::Parameter),
        (
            "postgresql://g@localhost/mail?sslmode=require",
            E::Unverified,
        ),
        (
            "postgresql://g@localhost/mail?sslmode=verify-ca",
            E::Unverified,
        ),
        (
            "postgresql://g@localhost,db.example.com/mail?sslmode=disable",
            E::InTheClear,
        ),
        ("postgresql://g@192.0.2.1/mail", E::Address),
        (
            "postgresql://g@127.0.0.1/mail?sslmode=verify-full",
            E::Address,
        ),
        (
            "postgresql://g@db.example.com/mail?target_session_attrs=any",
            E::ReadOnly,
        ),
        (
            "postgresql://g@db.example.com/mail?application_name=x",
            E::Unsupported(Some("application_name")),
        ),
        (
            "postgresql://g@db.example.com/mail?connect_timeout=5",
            E::Unsupported(Some("connect_timeout")),
        ),
        (
            "postgresql://g@db.example.com/mail?s3cret=5",
            E::Unsupported(None),
        ),
    ] {
        assert_eq!(DatabaseUrl::parse(text), Err(error), "{text}");
    }
}

#[test]
fn tls_is_off_for_this_machine_alone() {
    for (text, demands) in [
        (
            "postgresql://g@db.example.com,localhost/mail",
            &[true, false][..],
        ),
        (
            "postgresql://g@db.localhost,127.0.0.2,[::1]/mail",
            &[false, false, false],
        ),
        (
            "postgresql://g@localhost,%2Frun/mail?sslmode=verify-full",
            &[true, false],
        ),
        (
            "postgresql://g@localhost,%2Frun/mail?sslmode=disable",
            &[false, false],
        ),
    ] {
        let url = DatabaseUrl::parse(text).expect(text);
        let found: Vec<_> = url.hosts.iter().map(|host| url.needs_tls(host)).collect();
        assert_eq!(found, demands, "{text}");
        assert_eq!(url.uses_tls(), demands.contains(&true));
    }
}
