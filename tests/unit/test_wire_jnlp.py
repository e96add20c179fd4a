"""JNLP files as vendors' panels write them, broken ones, and those of somebody who means harm."""

from __future__ import annotations

import stat
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BadJnlp
from ipmiproxyd.wire.jars import Entry, jar_urls, libraries, needed
from ipmiproxyd.wire.jnlp import DOCUMENT_LIMIT, Jar, Jnlp, parse

BASE = "https://192.0.2.7/cgi/url_redirect.cgi?url_name=ikvm"

ATEN = b"""<jnlp spec="1.0+" codebase="http://192.0.2.7:80/">
  <information><title>ATEN Java iKVM Viewer</title><vendor>ATEN</vendor></information>
  <security><all-permissions/></security>
  <resources>
    <property name="jnlp.packEnabled" value="true"/>
    <property name="jnlp.versionEnabled" value="true"/>
    <j2se version="1.6.0+" initial-heap-size="128M" max-heap-size="128M" java-vm-args="-XX:PermSize=32M"/>
    <jar href="iKVM.jar" download="eager" main="true" version="1.69.38.0x0"/>
  </resources>
  <resources os="Windows" arch="x86_64"><nativelib href="libwin_x86_64.jar" version="1.0.12"/></resources>
  <resources os="Linux" arch="x86_64"><nativelib href="liblinux_x86_64.jar" version="1.0.12"/></resources>
  <resources os="Linux" arch="x86"><nativelib href="liblinux_x86.jar" version="1.0.12"/></resources>
  <resources os="Mac OS X" arch="x86_64"><nativelib href="libmac_x86_64.jar"/></resources>
  <application-desc main-class="tw.com.aten.ikvm.KVMMain">
    <argument>192.0.2.7</argument><argument>sEcReT&amp;1</argument><argument></argument>
    <argument>null</argument><argument>5900</argument>
    <argument><![CDATA[-----BEGIN CERTIFICATE-----
MIIC<a>
-----END CERTIFICATE-----]]></argument>
  </application-desc>
</jnlp>"""

ILO = b"""<html><body><div id="jnlpTemplate"><![CDATA[
<?xml version="1.0" encoding="UTF-8"?>
<jnlp spec="1.0+" codebase="https://192.0.2.7/" href="">
<resources><j2se version="1.5+" href="http://java.sun.com/products/autodl/j2se"></j2se>
<jar href="https://192.0.2.7/html/intgapp4_231.jar" main="false" /></resources>
<property name="deployment.trace.level property" value="basic"></property>
<applet-desc main-class="com.hp.ilo2.intgapp.intgapp" name="iLOJIRC"
  documentbase="https://192.0.2.7/html/java_irc.html" width="1" height="1">
<param name="RCINFO1" value="sEcReT"/><param name="RCINFOLANG" value="en"/></applet-desc>
</jnlp>]]></div></body></html>"""


def read(document: bytes | str, base: str = BASE, **more: object) -> Jnlp:
    return parse(document if isinstance(document, bytes) else document.encode(), base=base, **more)  # type: ignore[arg-type]


def with_jar(href: str, codebase: str = "https://192.0.2.7/Java", more: str = "") -> str:
    return f'<jnlp codebase="{codebase}"><resources><jar href="{href}"{more}/></resources></jnlp>'


def shown(arguments: object) -> list[str]:
    return [argument.reveal() for argument in arguments]  # type: ignore[attr-defined]


class RealOnesTests(SynchronousTestCase):
    def test_application(self) -> None:
        jnlp = read(ATEN)
        self.assertEqual((jnlp.codebase, jnlp.origin), ("https://192.0.2.7/", "https://192.0.2.7"))
        self.assertEqual((jnlp.main_class, jnlp.java), ("tw.com.aten.ikvm.KVMMain", ("1.6.0+",)))
        self.assertEqual((jnlp.title, jnlp.heap, jnlp.applet), ("ATEN Java iKVM Viewer", 128 << 20, None))
        arguments = shown(jnlp.arguments)
        self.assertEqual(arguments[:5], ["192.0.2.7", "sEcReT&1", "", "null", "5900"])
        self.assertTrue(arguments[5].endswith("MIIC<a>\n-----END CERTIFICATE-----"))
        self.assertNotIn("sEcReT", repr(jnlp))

    def test_files_that_this_machine_needs(self) -> None:
        main, native = needed(read(ATEN), "x86_64")
        self.assertEqual((main.main, main.native, native.native), (True, False, True))
        self.assertEqual(
            jar_urls(main),
            (
                "https://192.0.2.7/iKVM__V1.69.38.0x0.jar.pack.gz",
                "https://192.0.2.7/iKVM.jar.pack.gz",
                "https://192.0.2.7/iKVM__V1.69.38.0x0.jar",
                "https://192.0.2.7/iKVM.jar",
            ),
        )
        self.assertIn("https://192.0.2.7/liblinux_x86_64__V1.0.12.jar", jar_urls(native))
        (_, other) = needed(read(ATEN), "i386")
        self.assertTrue(other.url.endswith("liblinux_x86.jar"))
        self.assertEqual(len(needed(read(ATEN), "aarch64")), 1)

    def test_applet_in_a_page(self) -> None:
        jnlp = read(ILO)
        assert jnlp.applet is not None
        self.assertEqual(jnlp.main_class, "com.hp.ilo2.intgapp.intgapp")
        self.assertEqual([jar.url for jar in jnlp.jars], ["https://192.0.2.7/html/intgapp4_231.jar"])
        self.assertEqual((jnlp.applet.width, jnlp.applet.height, jnlp.applet.name), (1, 1, "iLOJIRC"))
        self.assertEqual(jnlp.applet.document, "https://192.0.2.7/html/java_irc.html")
        self.assertEqual(jnlp.applet.parameters["RCINFO1"].reveal(), "sEcReT")
        self.assertNotIn("sEcReT", repr(jnlp))

    def test_paths_of_every_kind(self) -> None:
        for codebase, href, url in (
            ("https://192.0.2.7:443", "/software/avctKVM.jar", "https://192.0.2.7:443/software/avctKVM.jar"),
            ("https://192.0.2.7:443/Java", "release/JViewer.jar", "https://192.0.2.7:443/Java/release/JViewer.jar"),
            ("https://192.0.2.7", "https://192.0.2.7/a/b__V3.jar", "https://192.0.2.7/a/b__V3.jar"),
            ("https://(null)/Java", "release/JViewer.jar", "https://192.0.2.7/Java/release/JViewer.jar"),
            ("https://(null):443/", "a.jar", "https://192.0.2.7/a.jar"),
            ("", "a.jar", "https://192.0.2.7/cgi/a.jar"),
            ("HTTPS://192.0.2.7/", "a.jar?x=1&y=2", "https://192.0.2.7/a.jar?x=1&y=2"),
        ):
            self.assertEqual(read(with_jar(href, codebase)).jars[0].url, url)

    def test_plain_http_only_where_the_description_came_by_it(self) -> None:
        document = with_jar("a.jar", "http://192.0.2.7:80/")
        self.assertEqual(read(document, "https://192.0.2.7:8443/x").jars[0].url, "https://192.0.2.7:8443/a.jar")
        self.assertEqual(read(document, "http://192.0.2.7/x").jars[0].url, "http://192.0.2.7:80/a.jar")

    def test_version_that_may_or_may_not_be_in_the_name(self) -> None:
        (jar,) = read(with_jar("a.jar", more=' version="1.2"')).jars
        base = "https://192.0.2.7/Java/a"
        self.assertEqual(
            jar_urls(jar),
            (f"{base}.jar", f"{base}__V1.2.jar", f"{base}.jar.pack.gz", f"{base}__V1.2.jar.pack.gz"),
        )
        (jar,) = read(with_jar("a.jar.pack.gz")).jars
        self.assertEqual(jar_urls(jar), (f"{base}.jar.pack.gz", f"{base}.jar"))

    def test_ipv6(self) -> None:
        jnlp = read(with_jar("a.jar", "https://[2001:DB8::0:1]:443/"), "https://[2001:db8::1]/x")
        self.assertEqual(jnlp.jars[0].url, "https://[2001:DB8::0:1]:443/a.jar")


class BrokenOnesTests(SynchronousTestCase):
    def test_byte_in_the_place_of_a_closing_tag(self) -> None:
        document = with_jar("a.jar").replace(
            "</jnlp>",
            "<application-desc><argument>192.0.2.7\x02<argument>7578</argument>\r\n<argument>token\x02"
            "</application-desc></jnlp>",
        )
        jnlp = read(document)
        self.assertEqual((shown(jnlp.arguments), jnlp.main_class), (["192.0.2.7", "7578", "token"], ""))

    def test_encodings(self) -> None:
        document = with_jar("a.jar").replace("<resources>", "<title>Stra\u00dfe</title><resources>")
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "latin-1"):
            self.assertEqual(read(document.encode(encoding)).title, "Stra\u00dfe")

    def test_it_stands_in_a_page_as_text(self) -> None:
        document = with_jar("a.jar").replace("<", "&lt;").replace(">", "&gt;")
        self.assertEqual(len(read(f"<!DOCTYPE html><pre>{document}</pre>").jars), 1)

    def test_ampersands_that_are_none(self) -> None:
        document = with_jar("a.jar").replace("</jnlp>", "<argument>a&b;c &copy; &#38;&#2; &#x110000;</argument>")
        self.assertEqual(shown(read(document).arguments), ["a&b;c &copy; &"])

    def test_it_ends_too_early(self) -> None:
        for end in range(70, len(ATEN)):
            try:
                read(ATEN[:end])
            except BadJnlp as error:
                self.assertNotIn("sEcReT", f"{error}{error.hint}")

    def test_same_file_twice(self) -> None:
        document = with_jar("a.jar").replace("</resources>", '<jar href="a.jar"/></resources>')
        self.assertEqual(len(read(document).jars), 1)


class RefusedTests(SynchronousTestCase):
    def refused(self, document: bytes | str, words: str, base: str = BASE) -> None:
        error = self.assertRaises(BadJnlp, read, document, base)
        self.assertIn(words, error.message)
        self.assertNotIn("sEcReT", f"{error.message} {error.hint}")

    def test_it_is_something_else(self) -> None:
        for document in (b"", b"\0" * 100, b"<html><title>iBMC Login</title></html>", b"PK\3\4", b"<jnlpx/>"):
            self.refused(document, "not the description")

    def test_declarations(self) -> None:
        bomb = '<?xml version="1.0"?><!DOCTYPE jnlp [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + with_jar("&b;.jar")
        outside = '<!DOCTYPE jnlp SYSTEM "file:///etc/passwd">' + with_jar("a.jar")
        inside = with_jar("a.jar").replace("<resources>", "<!DOCTYPE html><resources>")
        lower = '<!doctype html [<!entity x "y">]>' + with_jar("a.jar")
        for document in (bomb, outside, inside, lower, bomb.encode("utf-16")):
            self.refused(document, "document type or entities")

    def test_too_much(self) -> None:
        self.refused(ATEN + b" " * DOCUMENT_LIMIT, "too long")
        jars = "".join(f'<jar href="{number}.jar"/>' for number in range(100))
        self.refused(with_jar("a.jar").replace("</resources>", jars + "</resources>"), "too many files")
        self.refused(with_jar("a.jar").replace("</jnlp>", "<argument>x" * 300), "too many arguments")
        self.refused(with_jar("a.jar").replace("</jnlp>", "<argument>" + "sEcReT" * 10000), "too long")
        self.refused(
            with_jar("a.jar").replace("</jnlp>", '<param name="a" value="' + "sEcReT" * 10000 + '"/>'), "too long"
        )

    def test_another_host(self) -> None:
        for document in (
            with_jar("a.jar", "https://evil.example/"),
            with_jar("https://evil.example/a.jar"),
            with_jar("//evil.example/a.jar"),
            with_jar("a.jar", "https://192.0.2.7.evil.example/"),
            with_jar("a.jar", "https://192.0.2.7:8080/"),
        ):
            self.refused(document, "another place than the panel")
        self.refused(with_jar("a.jar", "https://192.0.2.7@evil.example/"), "not allowed")
        self.refused(with_jar("file:///etc/passwd"), "not allowed")
        self.refused(with_jar("jar:https://192.0.2.7/a.jar!/b"), "not allowed")
        self.refused(with_jar("https://[::1/a.jar"), "URL that is none")
        self.refused(with_jar("https://192.0.2.7:99999/a.jar"), "URL that is none")

    def test_host_that_is_allowed(self) -> None:
        document = with_jar("a.jar", "https://10.0.0.7:8080/")
        for name in ("10.0.0.7", "10.0.0.7:8080"):
            self.assertEqual(read(document, allowed=(name,)).jars[0].url, "https://10.0.0.7:8080/a.jar")
        self.assertRaises(BadJnlp, read, document, allowed=("10.0.0.7:443",))

    def test_host_that_is_allowed_is_not_trusted_more_than_the_panel(self) -> None:
        for codebase, url in (
            ("http://10.0.0.7/", "https://10.0.0.7/a.jar"),
            ("http://10.0.0.7:80/", "https://10.0.0.7/a.jar"),
            ("http://10.0.0.7:8080/", "https://10.0.0.7:8080/a.jar"),
        ):
            self.assertEqual(read(with_jar("a.jar", codebase), allowed=("10.0.0.7",)).jars[0].url, url)
        (jar,) = read(with_jar("a.jar", "http://10.0.0.7/"), "http://192.0.2.7/x", allowed=("10.0.0.7",)).jars
        self.assertEqual(jar.url, "http://10.0.0.7/a.jar")

    def test_paths_that_climb(self) -> None:
        for href in ("../a.jar", "a/../../b.jar", "/x/..", "%2e%2e/a.jar", "%252e%252e/a.jar", "a/%2E%2E%2Fb.jar"):
            self.refused(with_jar(href), "outside of its folder")
        self.refused(with_jar("a%3F/../../b.jar"), "outside of its folder")
        self.refused(with_jar("a.jar", "https://192.0.2.7/../x"), "outside of its folder")
        for href in ("..\\a.jar", "a b.jar", "a%0Ab.jar", "a%00.jar", "a|b.jar", "%5c..%5cx.jar", "x" * 3000):
            self.refused(with_jar(href), "not allowed")
        self.refused(with_jar("a.jar", more=' version="1/../../x"'), "version")

    def test_main_class_that_is_none(self) -> None:
        for name in ("-Djava.x=y", "a b", "a;b", "$(id)", "a..b", "ä"):
            document = with_jar("a.jar").replace("</jnlp>", f'<application-desc main-class="{name}"/></jnlp>')
            self.refused(document, "main class")

    def test_no_program(self) -> None:
        self.refused("<jnlp/>", "names no program")
        self.refused('<jnlp><resources><nativelib href="a.jar"/></resources></jnlp>', "names no program")

    def test_panel_that_could_not_make_it(self) -> None:
        for words in ("Unable to find JNLP String", "Access Error: no"):
            self.refused(with_jar("a.jar").replace("</jnlp>", words), "no arguments")

    def test_nothing_for_this_machine(self) -> None:
        document = '<jnlp><resources os="Windows"><jar href="a.jar"/></resources></jnlp>'
        self.assertRaises(BadJnlp, needed, read(document), "x86_64")


WORDS = """\
< > " ' / = ! - [ ] & ; a x <!-- --> <![CDATA[ ]]> <jnlp </jnlp> <argument> <jar href= href ../ &# (null) :// <resources
os= codebase= \x02 <applet-desc <param name= %2e"""


class AnythingTests(SynchronousTestCase):
    parts = st.sampled_from([" ", *WORDS.split()])

    @settings(max_examples=300)
    @given(st.lists(parts, max_size=60).map("".join))
    def test_any_text(self, text: str) -> None:
        for document in (text, f"<jnlp {text}", f'<jnlp><resources><jar href="a.jar"/>{text}</resources></jnlp>'):
            try:
                jnlp = read(document)
            except BadJnlp:
                continue
            for jar in jnlp.jars:
                for url in jar_urls(jar):
                    self.assertTrue(url.startswith("https://192.0.2.7"), url)
                    self.assertNotIn("..", url.split("/"))

    @given(st.binary(max_size=500))
    def test_any_bytes(self, data: bytes) -> None:
        for document in (data, b"<jnlp>" + data):
            self.assertRaises(BadJnlp, read, document)

    @given(st.lists(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cn", "Cc"]))), st.data())
    def test_arguments_arrive(self, arguments: list[str], data: st.DataObject) -> None:
        arguments = [argument.strip().replace("\ufeff", "") for argument in arguments]
        lines = "".join(
            f"<argument>{a.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')}</argument>"
            for a in arguments
        )
        jnlp = read(with_jar("a.jar").replace("</jnlp>", f"<application-desc>{lines}</application-desc></jnlp>"))
        self.assertEqual(shown(jnlp.arguments), arguments)

    def test_time_is_linear(self) -> None:
        begun = time.monotonic()
        size = DOCUMENT_LIMIT - 10
        parts = ["<", "<a ", "<a '", '<a "', "<!--", "<![CDATA[", "<a x=", "&", "<a b=\"'", "<argument>"]
        for part in parts:
            text = "<jnlp>" + part * (size // len(part) - 10)
            self.assertRaises(BadJnlp, read, text)
        self.assertRaises(BadJnlp, read, with_jar("%" + "25" * (size // 2 - 100)))
        self.assertLess(time.monotonic() - begun, 5)


class LibrariesTests(SynchronousTestCase):
    def test_real_one(self) -> None:
        listing = [
            Entry("META-INF/", 0, 0, stat.S_IFDIR | 0o755),
            Entry("META-INF/MANIFEST.MF", 300, 200),
            Entry("META-INF/ATEN.SF", 300, 200),
            Entry("libiKVM64.so", 400_000, 150_000, stat.S_IFREG | 0o644),
            Entry("x86_64/libSharedLibrary64.so", 400_000, 150_000),
        ]
        self.assertEqual(
            libraries(listing),
            {"libiKVM64.so": "libiKVM64.so", "x86_64/libSharedLibrary64.so": "libSharedLibrary64.so"},
        )

    def test_refused(self) -> None:
        good = Entry("liba.so", 100, 50)
        for bad in (
            Entry("../liba.so", 1, 1),
            Entry("a/../../liba.so", 1, 1),
            Entry("/etc/liba.so", 1, 1),
            Entry("..\\liba.so", 1, 1),
            Entry("c:liba.so", 1, 1),
            Entry("a\nb.so", 1, 1),
            Entry("x/liba.so", 1, 1),
            Entry("lib a.so", 1, 1),
            Entry("..", 1, 1),
            Entry("", 1, 1),
            Entry("META-INF/../../x", 1, 1),
            Entry("link.so", 20, 20, stat.S_IFLNK | 0o777),
            Entry("device.so", 0, 0, stat.S_IFCHR | 0o666),
            Entry("bomb.so", 90 << 20, 90 << 10),
            Entry("META-INF/bomb", 90 << 20, 90 << 10),
            Entry("large.so", 2 << 30, 1 << 30),
            Entry("small.so", -1, 5),
        ):
            self.assertRaises(BadJnlp, libraries, [good, bad])
        self.assertRaises(BadJnlp, libraries, [Entry(f"{n}.so", 1, 1) for n in range(300)])

    @given(st.lists(st.builds(Entry, st.text(alphabet="ab./\\ \0", max_size=8), st.integers(), st.integers())))
    def test_names_stay_in_the_folder(self, listing: list[Entry]) -> None:
        try:
            found = libraries(listing)
        except BadJnlp:
            return
        for name in found.values():
            self.assertNotIn(name, ("", ".", ".."))
            self.assertNotIn("/", name)


class JarTests(SynchronousTestCase):
    def test_file_without_an_ending(self) -> None:
        jar = Jar(url="https://192.0.2.7/dir.d/viewer", version="1")
        self.assertTrue(all(url.startswith("https://192.0.2.7/dir") for url in jar_urls(jar)))
