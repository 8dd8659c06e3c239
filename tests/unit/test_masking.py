"""What is personal or secret in a text, and what only looks so."""

import pytest

from moaa.masking import masked

FOUND = [
    ("Write to Ann.Lee+news@mail.example.org, please.", "Write to [e-mail], please."),
    ("Call +49 30 901820 now.", "Call [phone] now."),
    ("Call +1 (212) 555-0123.", "Call [phone]."),
    ("3782 822463 10005 is another", "[card] is another"),
    ("Ring (212) 736-5000 today.", "Ring [phone] today."),
    ("Card 4111 1111 1111 1111, 12/29.", "Card [card], 12/29."),
    ("5500-0000-0000-0004", "[card]"),
    ("key sk-abcdefghijklmnopqrstuv", "key [key]"),
    ("AKIAIOSFODNN7EXAMPLE is mine", "[key] is mine"),
    ("token eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2QT4", "token [key]"),
    ("PASSWORD = 'hunter2hunter2'", "PASSWORD = '[key]'"),
    ("Authorization: Bearer abc123abc123", "Authorization: Bearer [key]"),
    ("postgres://me:pa55word@db.example/x", "postgres://[key]@db.example/x"),
    (
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nafter",
        "[key]\nafter",
    ),
]


@pytest.mark.parametrize(("text", "expected"), FOUND)
def test_what_is_personal_or_secret_is_replaced(text, expected):
    changed, found = masked(text)
    assert changed == expected
    assert found.total() == 1
    again, none = masked(changed)
    assert (again, none.total()) == (changed, 0)


@pytest.mark.parametrize(
    "text",
    [
        "In 2026 it was 3.14159265358979, or 1,234,567,890.",
        "The order 4111 1111 1111 1112 fails its check digit.",
        "Primes: 2 3 5 7 11 13 17 19 23 29 31 37",
        "@someone wrote user@localhost",
        "The password is hard to remember.",
        "2026-11-29T02:15:39 and 192.168.100.200",
        "A uuid: 123e4567-e89b-12d3-a456-426614174000",
        "x = [1000000, 2000000, 3000000]",
    ],
)
def test_what_only_looks_so_stays(text):
    assert masked(text) == (text, {})


def test_all_in_a_text_are_counted():
    text = "a@b.example and c@d.example, +49 30 901820, 4111111111111111"
    changed, found = masked(text)
    assert changed == "[e-mail] and [e-mail], [phone], [card]"
    assert found == {"e-mail": 2, "phone": 1, "card": 1}


def test_other_countries_numbers_are_found_if_they_are_named():
    text = "Ruf an: 030 901820."
    assert masked(text)[0] == text
    assert masked(text, ["DE"])[0] == "Ruf an: [phone]."


def test_long_texts_take_no_time():
    for text in ("a" * 200_000, "1 " * 50_000, "a@" * 50_000, "password=" * 20_000):
        assert masked(text)[0] == text
