"""Names of Javas, which of them is chosen, and what a dead program's last words mean."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BadValue, ToolMissing
from ipmiproxyd.tools.java_profiles import DEFAULT, KNOWN, Java, archive, cause, choose, next_java, profile_of


def java(name: str, version: str, **more: object) -> Java:
    return Java(name=name, home=f"/opt/{name}", version=version, **more)  # type: ignore[arg-type]


JDK7 = java("jdk_7u80", "1.7.0_80")
JDK8 = java("jdk_8u121", "1.8.0_121")
JRE8 = java("jre_8u251", "1.8.0_251")
D17 = java("debian_17", "17.0.15")
J25 = java("temurin_25", "25.0.3")
HEADLESS = java("jdk_8u121", "1.8.0_121", graphics=False)


class NamesTests(SynchronousTestCase):
    def test_archives(self) -> None:
        for profile, name, folder in (
            ("jdk_7u80", "jdk-7u80-linux-x64.tar.gz", "jdk1.7.0_80"),
            ("jdk_8u121", "jdk-8u121-linux-x64.tar.gz", "jdk1.8.0_121"),
            ("jre_8u251", "jre-8u251-linux-x64.tar.gz", "jre1.8.0_251"),
            ("jre_7u80", "jre-7u80-linux-x64.tar.gz", "jre1.7.0_80"),
            ("server_jre_8u251", "server-jre-8u251-linux-x64.tar.gz", "jdk1.8.0_251"),
            ("jdk_8u5", "jdk-8u5-linux-x64.tar.gz", "jdk1.8.0_05"),
        ):
            self.assertEqual((archive(profile).name, archive(profile).folder), (name, folder))
        self.assertEqual(archive("jdk_8u121", "i386").name, "jdk-8u121-linux-i586.tar.gz")
        self.assertEqual(len(archive("jdk_7u80").sha1), 40)
        for bad in ("debian_17", "jdk_8", "../jdk_8u121", "jdk_8u121 "):
            self.assertRaises(BadValue, archive, bad)

    def test_names_of_folders(self) -> None:
        for profile in KNOWN:
            self.assertEqual(profile_of(f"/srv/java/{archive(profile).folder}"), profile)
        for home, name in (
            ("/usr/lib/jvm/java-17-openjdk-amd64", "debian_17"),
            ("/opt/java-17-openjdk-amd64", "java_17_openjdk_amd64"),
            ("/usr/lib/jvm/temurin-25-jdk-amd64", "temurin_25_jdk_amd64"),
            ("/opt/jdk1.8.0_05", "jdk_8u5"),
        ):
            self.assertEqual(profile_of(home), name)

    def test_versions(self) -> None:
        for version, major in (("1.7.0_80", 7), ("1.8.0_121", 8), ("9", 9), ("11.0.2", 11), ("17-ea", 17), ("x", 0)):
            self.assertEqual(java("x", version).major, major)


class ChoiceTests(SynchronousTestCase):
    def test_wanted_one(self) -> None:
        self.assertEqual(choose("jre_8u251", [D17, JDK8, JRE8]), (JRE8, ""))
        self.assertEqual(choose("", [D17, JRE8, JDK8])[0].name, DEFAULT)

    def test_best_of_the_others(self) -> None:
        for wanted, installed, best in (
            ("", [D17, JDK7, J25], JDK7),
            ("", [D17, J25], D17),
            ("", [JDK7, JRE8], JRE8),
            ("jdk_7u80", [JDK8, JRE8, D17], JRE8),
            ("debian_17", [J25, JDK8], JDK8),
            ("jdk_8u121", [HEADLESS, J25], J25),
        ):
            found, words = choose(wanted, installed)
            self.assertEqual(found, best)
            lacking = "can show no windows" if HEADLESS in installed else "is not installed"
            self.assertEqual(words, f"{wanted or DEFAULT} {lacking} on the agent: {best.label} is used.")

    def test_none(self) -> None:
        self.assertNotIn("windows", self.assertRaises(ToolMissing, choose, "", []).message)
        self.assertIn("can show no windows", self.assertRaises(ToolMissing, choose, "", [HEADLESS]).message)


class CauseTests(SynchronousTestCase):
    # As Java 7, 8 and 17 write them; those of 7 and 8 from documentation.
    KNOWN = (
        ("java.lang.UnsupportedClassVersionError: x/Main : Unsupported major.minor version 52.0", "newer Java"),
        (
            "Exception in thread \"main\" java.lang.UnsupportedClassVersionError: A has been compiled by a more recent"
            " version of the Java Runtime (class file version 65.0)",
            "newer Java",
        ),
        ("java.lang.UnsatisfiedLinkError: no iKVM64 in java.library.path: /run/console/library", "native library"),
        ("java.lang.UnsatisfiedLinkError: /x/libiKVM32.so: wrong ELF class: ELFCLASS32", "kind of processor"),
        (
            "javax.net.ssl.SSLHandshakeException: PKIX path building failed:"
            " sun.security.provider.certpath.SunCertPathBuilderException: unable to find valid certification path",
            "does not trust",
        ),
        (
            "Caused by: java.security.cert.CertPathValidatorException: Algorithm constraints check failed on disabled"
            " algorithm: MD5withRSA",
            "too old",
        ),
        ("javax.net.ssl.SSLHandshakeException: No appropriate protocol (protocol is disabled)", "too old"),
        ("javax.net.ssl.SSLHandshakeException: Received fatal alert: handshake_failure", "too old"),
        ("java.lang.SecurityException: Invalid signature file digest for Manifest main attributes", "signed"),
        (
            "Caused by: java.lang.UnsupportedOperationException: The Security Manager is deprecated",
            "does not have any more",
        ),
        ("java.lang.NoClassDefFoundError: javax/xml/bind/DatatypeConverter", "does not have any more"),
        ("java.lang.ClassNotFoundException: sun.misc.BASE64Encoder", "does not have any more"),
        ("java.net.ConnectException: Connection refused (Connection refused)", "does not reach"),
        ("java.net.NoRouteToHostException: No route to host", "does not reach"),
        ("java.net.SocketTimeoutException: connect timed out", "does not answer"),
        ("java.awt.HeadlessException: No X11 DISPLAY variable was set", "cannot show windows"),
        ("Error: Could not find or load main class com.x.Main", "part of the vendor's program is missing"),
        ("java.lang.OutOfMemoryError: Java heap space", "too little memory"),
        ("java.util.zip.ZipException: zip END header not found", "damaged"),
    )

    def test_known(self) -> None:
        for said, words in self.KNOWN:
            found = cause(f"Java ended by itself (exit status 1): {said}")
            assert found is not None, said
            self.assertIn(words, found.words)

    def test_unknown(self) -> None:
        self.assertIsNone(cause("Java ended by itself (exit status 0)"))

    def test_next_one(self) -> None:
        installed = [JDK7, JDK8, JRE8, D17, J25]
        for said, tried, following in (
            ("UnsupportedClassVersionError", [JDK7], JRE8),
            ("UnsupportedClassVersionError", [JDK7, JRE8], D17),
            ("UnsupportedClassVersionError", [J25], None),
            ("PKIX path building failed", [D17], JRE8),
            ("PKIX path building failed", [D17, JRE8], JDK7),
            ("PKIX path building failed", [JDK7], None),
            ("Connection refused", [D17], None),
            ("java.net.ConnectException: Connection refused", [D17], None),
            ("UnsatisfiedLinkError", [D17], None),
        ):
            found = cause(said)
            self.assertEqual(found and next_java(found, tried, installed), following, said)
        other = java("jdk_8u66", "1.8.0_66", machine="i386")
        why = cause("wrong ELF class: ELFCLASS32")
        assert why is not None
        self.assertEqual(next_java(why, [JDK8], [JDK8, JRE8, other]), other)
