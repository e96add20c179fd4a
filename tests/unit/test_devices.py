"""The stored devices, and what is forgotten when they change."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BadValue, Exists, NotFound
from ipmiproxyd.interfaces import Devices
from ipmiproxyd.model import BMC_CIPHER, BMC_REFUSED, Device, Secret, bmc_key
from ipmiproxyd.store.devices import StoredDevices
from tests.support.memory_store import MemoryStore

NODE = Device(name="node17", address="192.0.2.7", username="ADMIN", password=Secret("secret1"), notes="row 4")


class DeviceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = MemoryStore()
        self.devices = StoredDevices(self.store)

    def done(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def fails(self, coroutine: Any, error: type[Exception]) -> str:
        return str(self.failureResultOf(Deferred.fromCoroutine(coroutine), error).value)

    def test_is_devices(self) -> None:
        devices: Devices = self.devices
        self.assertIsNotNone(devices)

    def test_add_and_get(self) -> None:
        self.assertEqual(self.done(self.devices.add(NODE)), NODE)
        self.assertEqual(self.done(self.devices.get("node17")), NODE)

    def test_secrets_are_stored_as_secrets(self) -> None:
        self.done(self.devices.add(NODE))
        self.assertIsInstance(self.store.documents["device"]["node17"]["password"], Secret)

    def test_add_twice(self) -> None:
        self.done(self.devices.add(NODE))
        self.fails(self.devices.add(Device(name="node17", address="192.0.2.8")), Exists)
        self.assertEqual(self.done(self.devices.get("node17")), NODE)

    def test_add_what_is_not_valid(self) -> None:
        nameless, nowhere = Device(address="192.0.2.7"), Device(name="a", address="")
        for device in (nameless, nowhere, Device(name="a", address="b", port=0)):
            self.fails(self.devices.add(device), BadValue)
        self.assertEqual(self.done(self.devices.list()), [])

    def test_change(self) -> None:
        self.done(self.devices.add(NODE))
        after = self.done(self.devices.change("node17", {"port": 9001, "notes": ""}))
        self.assertEqual((after.port, after.notes, after.username), (9001, "", "ADMIN"))
        self.assertEqual(self.done(self.devices.get("node17")), after)

    def test_change_to_what_is_not_valid(self) -> None:
        self.done(self.devices.add(NODE))
        for changes in ({"port": 0}, {"colour": "red"}, {"name": "node18"}, {"password": "no secret"}):
            self.fails(self.devices.change("node17", changes), BadValue)
        self.assertEqual(self.done(self.devices.get("node17")), NODE)

    def test_unknown(self) -> None:
        for coroutine in (
            self.devices.get("nobody"),
            self.devices.change("nobody", {}),
            self.devices.remove("nobody"),
        ):
            self.assertIn("nobody", self.fails(coroutine, NotFound))

    def test_list_in_order(self) -> None:
        for name in ("b", "a", "c"):
            self.done(self.devices.add(Device(name=name, address="bmc")))
        self.assertEqual([device.name for device in self.done(self.devices.list())], ["a", "b", "c"])

    def test_remove(self) -> None:
        self.done(self.devices.add(NODE))
        self.done(self.devices.remove("node17"))
        self.fails(self.devices.get("node17"), NotFound)

    def remember(self, kind: str, bmc: str) -> None:
        self.done(self.store.put(kind, bmc_key(bmc, "local"), {}))

    def test_changed_sign_in_is_tried_anew(self) -> None:
        self.done(self.devices.add(NODE))
        for changes in ({"password": Secret("secret1")}, {"username": "root"}, {"privilege": "operator"}):
            self.remember(BMC_REFUSED, NODE.bmc)
            self.done(self.devices.change("node17", changes))
            self.assertEqual(self.store.documents[BMC_REFUSED], {}, changes)

    def test_other_changes_keep_the_refusal(self) -> None:
        self.done(self.devices.add(NODE))
        self.remember(BMC_REFUSED, NODE.bmc)
        self.done(self.devices.change("node17", {"notes": "moved", "location": "row 5"}))
        self.assertEqual(len(self.store.documents[BMC_REFUSED]), 1)

    def test_other_bmcs_keep_theirs(self) -> None:
        self.done(self.devices.add(NODE))
        self.remember(BMC_REFUSED, "192.0.2.7:6230")
        self.done(self.devices.change("node17", {"password": Secret("new")}))
        self.assertEqual(len(self.store.documents[BMC_REFUSED]), 1)

    def test_removed_device_is_forgotten(self) -> None:
        self.done(self.devices.add(NODE))
        for kind in (BMC_REFUSED, BMC_CIPHER):
            self.remember(kind, NODE.bmc)
        self.done(self.devices.remove("node17"))
        self.assertEqual(self.store.documents, {"device": {}, BMC_REFUSED: {}, BMC_CIPHER: {}})
