"""What is shown of contents, and what is kept to oneself."""

from dataclasses import replace

import pytest

from etsclone.model.diff import Shown, TextDiff
from etsclone.model.scope import PatternError
from etsclone.model.tree import Entry, Kind
from etsclone.plan.secrets import MASK, is_hidden, masked, secret_paths
from etsclone.plan.textdiff import MOST, Side, text_diff
from etsclone.units import counted

SECRET = "hunter2"
LABELS = ("a", "b")


def side(path: str, content: bytes, mode: int = 0o644) -> Side:
    entry = Entry(path.encode(), Kind.FILE, mode, 0, 0, 0, size=len(content), sha256="12" * 32)
    return Side(entry, content)


def shown(before: Side | None, after: Side | None, *, more: tuple[str, ...] = ()) -> TextDiff:
    return text_diff(before, after, LABELS, secret_paths(more))


def test_text_is_a_unified_diff() -> None:
    found = shown(side("/etc/x", b"one\ntwo\n"), side("/etc/x", b"one\nthree"))
    assert found.shown is Shown.TEXT
    assert found.lines == (
        "--- a/etc/x",
        "+++ b/etc/x",
        "@@ -1,2 +1,2 @@",
        " one",
        "-two",
        "+three",
        "\\ No newline at end of file",
    )


def test_a_new_file_has_nothing_before() -> None:
    found = shown(None, side("/etc/x", b"@@\n"))
    assert found.lines == ("--- /dev/null", "+++ b/etc/x", "@@ -0,0 +1 @@", "+@@")


@pytest.mark.parametrize("content", [b"\0", b"\xff\n", b"\x1b[2J\n", "a\u2028b".encode()])
def test_what_a_terminal_should_not_see_is_told_by_its_digest(content: bytes) -> None:
    found = shown(side("/etc/x", b"text\n"), side("/etc/x", content))
    assert found.shown is Shown.BINARY
    assert found.lines[1] == f"+ sha256 {'12' * 32}, {counted(len(content), 'byte')}"


def test_large_files_are_told_by_their_digests() -> None:
    large = Side(Entry(b"/etc/x", Kind.FILE, 0o644, 0, 0, 0, size=MOST + 1), b"")
    assert shown(large, side("/etc/x", b"")).shown is Shown.LARGE


@pytest.mark.parametrize(
    ("path", "mode", "content"),
    [
        ("/etc/shadow", 0o644, SECRET),
        ("/etc/gshadow-", 0o644, SECRET),
        ("/etc/ssh/ssh_host_rsa_key", 0o644, SECRET),
        ("/root/.ssh/id_ed25519", 0o644, SECRET),
        ("/etc/rsyncd.secrets", 0o644, SECRET),
        ("/var/lib/samba/private/secrets.tdb", 0o644, SECRET),
        ("/var/lib/samba/passdb.tdb", 0o644, SECRET),
        ("/etc/chrony/chrony.keys", 0o644, SECRET),
        ("/etc/ssl/private/x.pem", 0o644, SECRET),
        ("/etc/keepalived/keepalived.conf", 0o644, f"auth_pass {SECRET}"),
        ("/etc/systemd/network/wg0.netdev", 0o644, f"PresharedKey={SECRET}"),
        ("/etc/systemd/network/wg0.netdev.d/key.conf", 0o644, f"Key={SECRET}"),
        ("/etc/wpa_supplicant/wpa_supplicant.conf", 0o644, SECRET),
        ("/etc/site/own", 0o644, SECRET),
        ("/etc/x", 0o640, SECRET),
        ("/etc/x", 0o644, f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}"),
        ("/etc/x", 0o644, f"# AGE-SECRET-KEY-1{SECRET}"),
    ],
)
def test_secrets_show_nothing(path: str, mode: int, content: str) -> None:
    pairs: list[tuple[Side | None, Side | None]] = [
        (side(path, content.encode(), mode), side(path, b"other\n")),
        (side(path, b"other\n"), side(path, content.encode(), mode)),
        (None, side(path, content.encode(), mode)),
    ]
    for before, after in pairs:
        found = shown(before, after, more=("/etc/site",))
        assert (found.shown, found.lines) == (Shown.SECRET, ())
        told = text_diff(before, after, LABELS, None)
        assert any(SECRET in line for line in told.lines)


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/hosts", "/etc/ssh/ssh_host_rsa_key.pub"])
def test_what_everybody_may_read_is_shown(path: str) -> None:
    assert shown(side(path, b"a\n"), side(path, b"b\n")).shown is Shown.TEXT


@pytest.mark.parametrize(
    "line",
    [
        "password = hunter2",
        "+\tsecret hunter2;",
        'api_key: "hunter2"',
        "wpa-psk hunter2",
        "requirepass_password=hunter2",
        "DB_PASSWD='hunter2 and more'",
    ],
)
def test_values_of_passwords_are_masked(line: str) -> None:
    assert SECRET not in masked(line)
    assert masked(line).endswith(MASK)
    found = shown(side("/etc/x", b""), side("/etc/x", line.encode()))
    assert SECRET not in "".join(found.lines)


@pytest.mark.parametrize(
    "line",
    [
        'define("DB_PASSWORD", "hunter2");',
        '$config["db_password"] = "hunter2";',
        "<Password>hunter2</Password>",
        "DB_PASS=hunter2",
        "pwd: hunter2",
        "bindpw hunter2",
        "requirepass hunter2",
        "auth_key = hunter2",
        "CREATE USER x IDENTIFIED BY 'hunter2'",
        "uri = postgres://user:hunter2@host/db",
        "   auth_pass hunter2",
        "PresharedKey=hunter2",
        "Key=hunter2",
        'mysqldump -p"hunter2',
        'mysqldump -p"a\\" hunter2" shop',
        "Key = hunter2",
        "\twireless-key s:hunter2",
        "+  wireless-key1 hunter2",
        "    wpa-wep-key0 hunter2",
        "wep_key0=hunter2",
        "    wpa-psk hunter2",
        "5 1 * * * root mysqldump -phunter2 shop",
        "5 1 * * * root mysqldump -u me -p'hunter2 and more' shop > /srv/x",
        "5 1 * * * root curl -u me:hunter2 https://host/x",
        "5 1 * * * root curl -sSu 'me:hunter2 and more' --proxy-user me:hunter2 'https://host/?a=1&b=2'",
        "5 1 * * * root curl 'https://host/?a=1&b=2' --user=me:hunter2",
        "5 1 * * * root sshpass -p hunter2 ssh host",
        "5 1 * * * root sshpass -v -P word -phunter2 ssh host",
        "5 1 * * * root /usr/bin/smbclient -U me%hunter2 //host/share",
        "5 1 * * * root smbclient -U 'me%hunter2 and more' //host/share",
        "5 1 * * * root tar c /srv | openssl enc -aes-256-cbc -k hunter2 -out /srv/x",
        "5 1 * * * root openssl enc -pass pass:hunter2",
        "5 1 * * * root ldapsearch -D cn=me -w hunter2",
        "5 1 * * * root redis-cli -a hunter2 save",
        "5 1 * * * root ipmitool -U me -P hunter2 power on",
        "5 1 * * * root wget -q https://user:hunter2@host/x",
        "5 1 * * * root wget -q https://user:p@hunter2@host/x",
    ],
)
def test_other_ways_to_write_passwords_are_masked(line: str) -> None:
    assert SECRET not in masked(line)
    found = shown(side("/etc/x", b""), side("/etc/x", line.encode()))
    assert SECRET not in "".join(found.lines)


@pytest.mark.parametrize(
    "lines",
    [
        "key ddns {\n  algorithm hmac-sha256;\n  secret\n    hunter2;\n};\n",
        "secret\n\n\thunter2;\n",
        "password: |\n  hunter2\n",
        "DB_PASSWORD= \\\nhunter2\n",
        "<password>\nhunter2\n</password>\n",
        '{"api_key":\n "hunter2"}\n',
    ],
)
def test_a_value_on_the_next_line_is_masked(lines: str) -> None:
    other = lines.replace(SECRET, "old-value")
    found = shown(side("/etc/x", other.encode()), side("/etc/x", lines.encode()))
    assert found.shown is Shown.TEXT
    assert [MASK in line for line in found.lines if line[0] in "+-"][2:] == [True, True]
    assert SECRET not in "".join(found.lines)
    assert "old-value" not in "".join(found.lines)


def test_a_value_is_masked_whose_word_is_above_what_is_shown() -> None:
    before = f"secret\n  {SECRET};\n\n\nold\n"
    found = shown(side("/etc/x", before.encode()), side("/etc/x", before.encode() + b"new\n"))
    assert SECRET not in "".join(found.lines)
    before = f"secret\n  {SECRET};\n1\nold\n"
    found = shown(
        side("/etc/x", before.encode()), side("/etc/x", before.replace("old", "new").encode())
    )
    assert SECRET not in "".join(found.lines)


@pytest.mark.parametrize(
    "lines",
    [
        "mysqldump -u me -p\\\nhunter2 \\\n  shop\n",
        "mysqldump -u me -phun\\\nter2 shop\n",
        "5 1 * * * curl -sS \\\n  -u me:hunter2 \\\r\n https://host/x\n",
        "curl -u \\\n 'me:some \\\n hunter2 words' x\n",
        "export A=1 DB_PASSWORD=first\\\nhunter2\n",
        "wget https://me:first\\\nhunter2@host/x\n",
        "password = 'one \\\n two \\\n hunter2'\n",
        "secret \\\n one \\\n hunter2",
        "openssl enc \\\n\\\n -k \\\n hunter2 \\",
        "openssl enc \\  \n -k \\ \n hunter2\n",
    ],
)
def test_a_value_that_goes_on_after_a_backslash_is_masked(lines: str) -> None:
    other = lines.replace("hunter2", "old-value").replace("hun\\\nter2", "old\\\n-value")
    found = shown(side("/etc/x", other.encode()), side("/etc/x", lines.encode()))
    assert found.shown is Shown.TEXT
    text = "\n".join(found.lines)
    assert MASK in text
    for piece in ("hunter", "ter2", "-phun", "old-value", "-value", "-pold"):
        assert piece not in text.replace("https://me", "")


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        ("password", " "),
        ("password = ", "\t"),
        ("", "password"),
        ("", "a."),
        ("mysql -p", '\\"'),
        ("mysql -p", "'"),
        ("curl ", "-u "),
        ("sshpass", " -v x"),
        ("", "://a:"),
    ],
)
def test_a_line_of_any_length_is_masked_in_time(start: str, piece: str) -> None:
    """What grows faster than the line would take hours: the time that a test has is enough to tell."""
    line = start + piece * (MOST // len(piece)) + "x"
    assert masked(line)
    assert text_diff(side("/etc/x", line.encode()[:MOST]), None, LABELS, secret_paths()).lines


def test_of_a_command_over_some_lines_only_the_secret_is_masked() -> None:
    lines = "curl -sS \\\n\t-u me:hunter2 \\\n\thttps://host/x \\\n\t-o /srv/x\n"
    found = shown(None, side("/etc/x", lines.encode()))
    assert found.lines[3:] == (
        "+curl -sS \\",
        f"+\t-u {MASK} \\",
        "+\thttps://host/x \\",
        "+\t-o /srv/x",
    )


def test_a_line_that_is_secret_on_one_side_is_on_the_other() -> None:
    before, after = b"secret \\\n one \\\n hunter2\n", b"x \\\n hunter2\n"
    for sides in ((before, after), (after, before)):
        found = shown(*(side("/etc/x", each) for each in sides))
        assert SECRET not in "".join(found.lines)


@pytest.mark.parametrize(
    "lines",
    [
        "a \\\nPort 22\n",
        "C:\\\n\\\n\\\n",
        "# change the secret\nmax-lease-time 600;\n",
        "[token]\nlength = 5\n",
        "PasswordAuthentication no\nPort 22\n",
        "</password>\n<port>22</port>\n",
    ],
)
def test_what_follows_no_secret_word_is_shown(lines: str) -> None:
    found = shown(side("/etc/x", b""), side("/etc/x", lines.encode()))
    assert found.lines[3:] == tuple(f"+{line}" for line in lines.splitlines())


@pytest.mark.parametrize(
    "line",
    [
        "PasswordAuthentication no",
        "+PermitEmptyPasswords no",
        '"require_password": true,',
        'XKBLAYOUT="us"',
        "keyboard-layout us",
        "keyboard-configuration keyboard-configuration/layoutcode string us",
        "KeyFile=/etc/x",
        "PrivateKeyFile=/etc/x",
        "PresharedKeyFile=/etc/x",
        "password_file /etc/x",
        "AuthorizedKeysFile .ssh/authorized_keys",
        "key ddns-key;",
        '<option key="name" value="1"/>',
        "auth_type PASS",
        "wireless-essid home",
        "mysqldump -u me -p shop",
        "mysqldump --port 3306 shop | ssh -p22 host",
        "mysqldump shop && mkdir -pv /srv/x",
        "curl -u me https://host:80/x",
        "curl -fsS https://host/x -o /srv/x",
        "sshpass -f /root/x ssh -p 22 host",
        "ssh -p 22 host",
        "useradd -U me",
        "smbclient -U me //host/share",
        "openssl req -key /etc/x",
    ],
)
def test_ordinary_lines_are_shown(line: str) -> None:
    assert masked(line) == line


@pytest.mark.parametrize("line", ["pass in on eth0", "http://host:80/x", "host_key_algorithms x"])
def test_what_only_looks_a_little_like_one_is_shown(line: str) -> None:
    assert masked(line) == line


@pytest.mark.parametrize("line", ["option routers 10.0.0.1;", "+++ b/etc/secret.conf", "secret"])
def test_other_lines_are_as_they_are(line: str) -> None:
    assert masked(line) == line


def test_a_profiles_patterns_must_be_patterns() -> None:
    with pytest.raises(PatternError):
        secret_paths(("relative",))


@pytest.mark.parametrize("hidden", [(True, False), (False, True)])
def test_what_stands_in_a_folder_that_keeps_others_out_is_secret(
    hidden: tuple[bool, bool],
) -> None:
    before, after = side("/etc/x", b"one\n"), side("/etc/x", b"two\n")
    assert shown(before, after).shown is Shown.TEXT
    before, after = replace(before, hidden=hidden[0]), replace(after, hidden=hidden[1])
    assert shown(before, after) == TextDiff(b"/etc/x", Shown.SECRET)
    assert text_diff(before, after, LABELS, None).shown is Shown.TEXT


@pytest.mark.parametrize(
    ("modes", "hidden"),
    [
        ((), False),
        ((0o755, 0o1777), False),
        ((0o755, 0o700), True),
        ((0o750, 0o755), True),
        ((0o755, 0o711), True),
    ],
)
def test_folders_that_keep_others_out(modes: tuple[int, ...], hidden: bool) -> None:
    assert is_hidden(Entry(b"/x", Kind.FOLDER, mode, 0, 0, 0) for mode in modes) is hidden
