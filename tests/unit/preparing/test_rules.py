"""Every rule on plain trees: something to do, nothing to do, done already, refused. And twice is once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouds.preparing.guest import Guest
from clouds.preparing.layout import Layout, Partition
from clouds.preparing.network import WAYS, Way
from clouds.preparing.rules import Plan, make_plan
from clouds.preparing.steps import Copy, Remove, Run, Write
from clouds.preparing.targets import TARGETS
from models.clouds import Cloud
from tests.unit.preparing.trees import DHCP, DRIVERS, ESP, KERNEL, PROGRAMS, ROOT, done, guest


def plan(of: Guest, target: Cloud = "aws", dhcp: bool = False) -> Plan:
    return make_plan(of, TARGETS[target], dhcp)


def written(found: Plan) -> dict[str, str]:
    return {step.path: step.text for step in found.steps if isinstance(step, Write)}


def whys(found: Plan) -> str:
    assert not [each for each in found.refused if not each.remedy]
    return "; ".join(each.why for each in found.refused)


def programs(found: Plan) -> list[str]:
    return [step.words[0] for step in found.steps if isinstance(step, Run)]


@pytest.mark.parametrize("target", TARGETS)
def test_a_plain_debian_is_prepared_for_every_target_and_the_second_time_nothing_is_left(target: Cloud) -> None:
    first = plan(guest(), target)
    assert not first.refused
    after = done(guest(), first)
    assert set(TARGETS[target].drivers) <= after.packed[KERNEL]
    second = plan(after, target)
    assert second.steps == ()
    assert second.refused == ()


def test_programs_run_once_each_and_after_all_files_are_written() -> None:
    of = guest({"etc/initramfs-tools/conf.d/resume": "RESUME=/dev/vda5\n"})
    found = plan(of)
    kinds = [isinstance(step, Run) for step in found.steps]
    assert kinds == sorted(kinds)
    assert programs(found) == ["update-initramfs", "update-grub"]
    paths = [step.path for step in found.steps]
    assert len(paths) == len(set(paths)), "two rules write one file"


def test_a_second_target_is_prepared_on_top_of_the_first() -> None:
    after = done(guest(), plan(guest(), "aws"))
    again = done(after, plan(after, "azure"))
    assert {"nvme", "hv_storvsc"} <= again.packed[KERNEL]
    assert plan(again, "azure").steps == ()


# The machine.


@pytest.mark.parametrize("kind", ["luks", "lvm", "raid", "btrfs", "ntfs", "bitlocker", "unknown", "empty", "swap"])
def test_a_disk_without_a_linux_that_can_be_read_is_refused(kind: str) -> None:
    found = plan(guest(root="", layout=Layout((Partition(1, kind),))))
    assert len(found.refused) == 1
    assert "vda1" in whys(found)
    assert found.steps == ()


def test_a_volume_of_lvm_beside_the_root_is_refused_and_ntfs_beside_it_is_not() -> None:
    root = Partition(2, "ext4", ROOT)
    assert "LVM" in whys(plan(guest(layout=Layout((root, Partition(3, "lvm"))))))
    assert not plan(guest(layout=Layout((root, Partition(3, "ntfs"))))).refused


def test_two_roots_an_unmounted_boot_and_a_damaged_file_system_are_refused() -> None:
    assert "2 roots of Linux: vda2, vda3" in whys(plan(guest(root="vda2:ext4 vda3:xfs")))
    assert "/dev/sdb1 /boot" in whys(plan(guest(unmounted=("/dev/sdb1 /boot",))))
    assert "vda3 cannot be mounted" in whys(plan(guest(damaged=("vda3",))))


def test_no_kernel_and_one_without_its_modules_are_refused() -> None:
    assert "no kernel" in whys(plan(guest(present=PROGRAMS)))
    bare = guest({f"usr/lib/modules/{KERNEL}/modules.dep": ""})
    assert f"{KERNEL} has no modules" in whys(plan(bare))


@pytest.mark.parametrize("target", TARGETS)
def test_a_driver_that_the_kernel_lacks_is_refused_by_name_and_one_that_it_may_lack_is_not(target: Cloud) -> None:
    for name in TARGETS[target].drivers:
        assert name in whys(plan(guest(without=name), target))
    for name in TARGETS[target].if_there:
        assert not plan(guest(without=name), target).refused


# Drivers.


def test_what_is_built_in_or_in_the_initramfs_already_needs_nothing() -> None:
    assert "update-initramfs" not in programs(plan(guest(packed=" ".join(DRIVERS))))
    builtin = "".join(f"kernel/drivers/{name}.ko\n" for name in DRIVERS)
    assert "update-initramfs" not in programs(plan(guest({f"usr/lib/modules/{KERNEL}/modules.builtin": builtin})))


def test_only_what_is_not_listed_yet_is_listed_and_the_list_keeps_its_lines() -> None:
    found = written(plan(guest({"etc/initramfs-tools/modules": "# mine\nnvme"})))
    assert found["etc/initramfs-tools/modules"] == "# mine\nnvme\nena\n"


def test_dracut_is_given_a_file_and_made_for_any_machine() -> None:
    of = guest(present=frozenset({f"boot/vmlinuz-{KERNEL}", "usr/bin/dracut", "usr/sbin/update-grub"}))
    found = plan(of)
    assert written(found)["etc/dracut.conf.d/90-novacron.conf"] == 'hostonly="no"\nadd_drivers+=" nvme ena "\n'
    assert "dracut" in programs(found)
    assert plan(done(of, found)).steps == ()


def test_without_either_program_it_is_refused() -> None:
    of = guest(present=frozenset({f"boot/vmlinuz-{KERNEL}", "usr/sbin/update-grub"}))
    assert "neither initramfs-tools nor dracut" in whys(plan(of))


# The boot menu.


def test_console_and_words_are_set_and_a_root_by_name_goes() -> None:
    grub = 'GRUB_CMDLINE_LINUX_DEFAULT="quiet console=tty1"\nGRUB_CMDLINE_LINUX="root=/dev/vda2 net.ifnames=1 a=b"\n'
    text = written(plan(guest({"etc/default/grub": grub})))["etc/default/grub"]
    assert 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"' in text
    assert 'LINUX="a=b console=tty0 console=ttyS0,115200n8 net.ifnames=0 biosdevname=0"' in text
    azure = written(plan(guest({"etc/default/grub": grub}), "azure"))["etc/default/grub"]
    assert "console=tty1 console=ttyS0 " in azure
    assert "rootdelay=300" in azure


def test_a_menu_that_is_right_is_left_whatever_the_speed_of_its_console() -> None:
    words = "console=tty0 console=ttyS0,9600 net.ifnames=0 biosdevname=0"
    line = f"linux /boot/vmlinuz-{KERNEL} root=UUID={ROOT} ro {words}\n"
    rescue = f"  linux /boot/vmlinuz-{KERNEL} root=UUID={ROOT} ro single\n"
    assert "update-grub" not in programs(plan(guest({"boot/grub/grub.cfg": line + rescue})))
    turned = line.replace("console=tty0 console=ttyS0,9600", "console=ttyS0,9600 console=tty0")
    assert "update-grub" in programs(plan(guest({"boot/grub/grub.cfg": turned})))


def test_red_hats_grub_is_made_by_its_own_program_and_entries_of_their_own_are_edited() -> None:
    here = frozenset({f"boot/vmlinuz-{KERNEL}", "usr/bin/dracut", "usr/sbin/grub2-mkconfig"})
    base = guest(present=here)
    files = {path: text for path, text in base.files.items() if not path.startswith("boot/grub/")}
    grub2 = replace(base, files={**files, "boot/grub2/grub.cfg": base.files["boot/grub/grub.cfg"]})
    assert ("grub2-mkconfig", "-o", "/boot/grub2/grub.cfg") in [getattr(s, "words", ()) for s in plan(grub2).steps]
    entry = f"title x\noptions root=UUID={ROOT} ro quiet\nlinux /vmlinuz\n"
    bls = replace(grub2, files={**files, "boot/grub2/grub.cfg": "blscfg\n", "boot/loader/entries/a.conf": entry})
    assert f"options root=UUID={ROOT} ro quiet console=tty0 " in written(plan(bls))["boot/loader/entries/a.conf"]
    assert plan(done(bls, plan(bls))).steps == ()
    for text, why in (
        (entry.replace("quiet", "$kernelopts"), "grubenv"),
        (entry.replace(f"UUID={ROOT}", "/dev/vda2"), "root="),
    ):
        refused = replace(bls, files={**bls.files, "boot/loader/entries/a.conf": text})
        assert why in whys(plan(refused))


def test_what_is_no_grub_or_cannot_be_made_anew_is_refused() -> None:
    assert "computes" in whys(plan(guest({"etc/default/grub": 'GRUB_CMDLINE_LINUX="$(cat x)"\n'})))
    base = guest()
    no_menu = replace(base, files={path: text for path, text in base.files.items() if "grub" not in path})
    assert "no grub.cfg" in whys(plan(no_menu))
    no_defaults = replace(base, files={path: text for path, text in base.files.items() if path != "etc/default/grub"})
    assert "no etc/default/grub" in whys(plan(no_defaults))
    no_program = guest(present=frozenset({f"boot/vmlinuz-{KERNEL}", "usr/sbin/update-initramfs"}))
    assert "no update-grub" in whys(plan(no_program))


def with_efi(*names: str) -> Guest:
    base = guest()
    return replace(base, present=base.present | {f"boot/efi/EFI/{name}" for name in names})


def test_the_loader_is_put_where_uefi_looks_the_shim_with_its_grub() -> None:
    def copies(of: Guest) -> list[tuple[str, str]]:
        return [(step.source[13:], step.path[13:]) for step in plan(of).steps if isinstance(step, Copy)]

    assert copies(with_efi("debian/grubx64.efi")) == [("debian/grubx64.efi", "BOOT/BOOTX64.EFI")]
    both = with_efi("debian/grubx64.efi", "debian/shimx64.efi")
    assert copies(both) == [
        ("debian/grubx64.efi", "BOOT/grubx64.efi"),
        ("debian/shimx64.efi", "BOOT/BOOTX64.EFI"),
    ]
    assert copies(with_efi("debian/grubx64.efi", "boot/bootx64.efi")) == []
    assert copies(done(both, plan(both))) == []
    assert "several to copy" in whys(plan(with_efi("a/grubx64.efi", "b/grubx64.efi")))
    assert "none to copy" in whys(plan(with_efi("systemd/systemd-bootx64.efi")))


# File systems.


@pytest.mark.parametrize("name", ["/dev/vda2", "/dev/sda2", "/dev/xvda2", "/dev/hda2", "/dev/nvme0n1p2"])
def test_disks_by_their_place_become_uuids(name: str) -> None:
    text = written(plan(guest({"etc/fstab": f"{name}  /  ext4  defaults 0 1\n/dev/vda1\t/boot/efi vfat umask=0077\n"})))
    assert text["etc/fstab"] == f"UUID={ROOT}  /  ext4  defaults 0 1\nUUID={ESP}\t/boot/efi vfat umask=0077\n"


@pytest.mark.parametrize(
    "line",
    [f"UUID={ROOT} / ext4", "LABEL=x / ext4 rw", "PARTUUID=a-02 / ext4 rw", "tmpfs /tmp tmpfs", "# /dev/vda2 / ext4"],
)
def test_what_moves_with_the_disk_is_left(line: str) -> None:
    assert "etc/fstab" not in written(plan(guest({"etc/fstab": f"{line}\n"})))


def test_a_disk_that_is_not_here_is_refused_unless_the_guest_can_do_without() -> None:
    for name in ("/dev/vdb1", "/dev/vda7", "/dev/disk/by-path/pci-0000:00:05.0-part1"):
        assert f"{name} /data" in whys(plan(guest({"etc/fstab": f"{name} /data ext4 rw 0 2\n"})))
        assert not plan(guest({"etc/fstab": f"{name} /data ext4 rw,nofail 0 2\n"})).refused


def test_the_swap_to_wake_from_is_named_by_uuid_and_the_initramfs_knows() -> None:
    of = guest({"etc/initramfs-tools/conf.d/resume": "RESUME=/dev/vda5\n"}, packed=" ".join(DRIVERS))
    assert written(plan(of))["etc/initramfs-tools/conf.d/resume"] == f"RESUME=UUID={ROOT[::-1]}\n"
    assert "update-initramfs" in programs(plan(of))
    assert "resume" not in str(written(plan(guest({"etc/initramfs-tools/conf.d/resume": "RESUME=UUID=x\n"}))))


# cloud-init.


@pytest.mark.parametrize("target", TARGETS)
def test_cloud_init_is_told_where_to_ask_if_it_is_there(target: Cloud) -> None:
    text = written(plan(guest(), target))["etc/cloud/cloud.cfg.d/99_novacron.cfg"]
    assert text == f"datasource_list: [ {', '.join(TARGETS[target].data_sources)} ]\n"
    without = guest(present=(PROGRAMS - {"usr/bin/cloud-init"}) | {f"boot/vmlinuz-{KERNEL}"})
    assert not [path for path in written(plan(without, target)) if "cloud" in path]


def test_a_file_that_speaks_after_ours_is_refused() -> None:
    other = {"etc/cloud/cloud.cfg.d/99_zz.cfg": "datasource_list: [ NoCloud ]\n"}
    assert "99_zz.cfg has the last word" in whys(plan(guest(other)))
    assert not plan(guest({"etc/cloud/cloud.cfg.d/90_dpkg.cfg": "datasource_list: [ NoCloud ]\n"})).refused


# Network.

BY_HAND = {
    "ifupdown": "iface ens3 inet static\n  address 10.0.0.5/24\n",
    "netplan": "network:\n  ethernets:\n    ens3:\n      addresses:\n        - 10.0.0.5/24\n",
    "systemd-networkd": "[Match]\nName=ens3\n[Network]\nAddress=10.0.0.5/24\n",
    "NetworkManager": "[connection]\ntype=ethernet\n[ipv4]\nmethod=manual\naddress1=10.0.0.5/24\n",
    "network scripts": "DEVICE=ens3\nBOOTPROTO=none\nIPADDR=10.0.0.5\n",
}
MORE = {
    "ifupdown": "iface br0 inet manual\n  bridge_ports ens3\n",
    "netplan": "network:\n  bonds:\n    bond0:\n      interfaces: [ens3, ens4]\n",
    "systemd-networkd": "[NetDev]\nName=br0\nKind=bridge\n",
    "NetworkManager": "[connection]\ntype=bond\n",
    "network scripts": "DEVICE=bond0\nTYPE=Bond\n",
}


def test_every_way_is_tested() -> None:
    assert {way.name for way in WAYS} == DHCP.keys() == BY_HAND.keys() == MORE.keys()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_dhcp_on_one_card_becomes_dhcp_on_any_and_stays(way: Way) -> None:
    path, text = DHCP[way.name]
    of = guest({path: text})
    found = plan(of)
    assert not found.refused
    assert written(found)[way.ours] == way.text
    assert path in [step.path for step in found.steps if isinstance(step, Remove)]
    assert plan(done(of, found)).steps == ()


@pytest.mark.parametrize("name", BY_HAND)
def test_addresses_by_hand_are_refused_unless_dhcp_is_allowed(name: str) -> None:
    of = guest({DHCP[name][0]: BY_HAND[name]})
    assert DHCP[name][0] in whys(plan(of))
    assert "by hand" in whys(plan(of))
    assert not plan(of, dhcp=True).refused


@pytest.mark.parametrize("name", MORE)
def test_more_than_plain_cards_is_refused_dhcp_allowed_or_not(name: str) -> None:
    of = guest({DHCP[name][0]: MORE[name]})
    assert plan(of, dhcp=True).refused
    assert plan(of).refused


def test_a_file_that_is_a_link_is_refused_since_what_it_says_was_not_read() -> None:
    assert "etc/netplan/x.yaml is a link" in whys(plan(guest(links={"etc/netplan/x.yaml": "/srv/x"})))
    assert not plan(guest(links={"etc/systemd/network/x.network": "/dev/null"})).refused


def test_the_loopback_is_left_alone() -> None:
    path = "etc/systemd/network/lo.network"
    assert path not in [step.path for step in plan(guest({path: "[Match]\nName=lo\n"})).steps]


def test_names_by_address_are_forgotten_and_other_rules_kept() -> None:
    rule = "etc/udev/rules.d/70-persistent-net.rules"
    link = "etc/systemd/network/10-lan.link"
    of = guest(
        {rule: 'ATTR{address}=="52:54:00:00:00:01", NAME="eth0"\n', link: "[Match]\nMACAddress=52:54:00:00:00:01\n"}
    )
    removed = [step.path for step in plan(of).steps if isinstance(step, Remove)]
    assert {rule, link} <= set(removed)
    kept = guest({link: "[Match]\nOriginalName=*\n", "etc/udev/rules.d/60-x.rules": 'ATTR{address}=="x"\n'})
    assert not [step for step in plan(kept).steps if isinstance(step, Remove)]


# Twice is once, whatever is combined.


@given(
    target=st.sampled_from(list(TARGETS)),
    ways=st.sets(st.sampled_from(list(DHCP))),
    by_hand=st.booleans(),
    packed=st.sets(st.sampled_from(DRIVERS)),
    listed=st.lists(st.sampled_from(DRIVERS), max_size=4),
    words=st.lists(
        st.sampled_from(["quiet", "console=tty0", "console=ttyS0", "net.ifnames=1", "root=/dev/sda1"]), max_size=5
    ),
    fstab=st.lists(
        st.sampled_from(["/dev/vda2 / ext4", "/dev/sda1 /boot/efi vfat", f"UUID={ROOT} / ext4", "# x"]), max_size=4
    ),
)
def test_a_second_run_changes_nothing(
    target: Cloud,
    ways: set[str],
    by_hand: bool,
    packed: set[str],
    listed: list[str],
    words: list[str],
    fstab: list[str],
) -> None:
    files = {DHCP[name][0]: BY_HAND[name] if by_hand else DHCP[name][1] for name in ways}
    files["etc/initramfs-tools/modules"] = "\n".join(listed)
    files["etc/default/grub"] = f'GRUB_CMDLINE_LINUX="{" ".join(words)}"\n'
    files["etc/fstab"] = "".join(f"{line}\n" for line in fstab)
    of = guest(files, packed=" ".join(packed))
    first = plan(of, target, dhcp=True)
    assert first.refused == ()
    second = plan(done(of, first), target, dhcp=True)
    assert second.steps == ()
    assert second.refused == ()
