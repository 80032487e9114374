# shellcheck shell=bash
# What a system says of the disk that it is on: fstab, crypttab and their like, one set a layout. To be sourced.
#
# The identifiers are chosen before the disk is made, so that the tables and the initramfs, which holds some of them,
# can be made wherever that is quick. `id` maps a name (esp, boot, root, swap, luks, array) to its UUID.

declare -A id=()

new_ids() {
    local what
    for what in boot root swap luks array; do id[$what]=$(< /proc/sys/kernel/random/uuid); done
    id[esp]=$(tr -d - < /proc/sys/kernel/random/uuid | cut -c 1-8)
    id[esp]=${id[esp]^^}
    id[esp]=${id[esp]:0:4}-${id[esp]:4}
}

# The lines of fstab, without what every UEFI system has.
fstab() {
    case $1 in
        bios-ext4) cat <<TABLE ;;
UUID=${id[root]}  /     ext4  errors=remount-ro  0  1
UUID=${id[swap]}  none  swap  sw                 0  0
TABLE
        uefi-xfs) cat <<TABLE ;;
UUID=${id[root]}  /     xfs   defaults  0  0
UUID=${id[swap]}  none  swap  sw        0  0
TABLE
        uefi-btrfs) cat <<TABLE ;;
UUID=${id[root]}  /      btrfs  defaults,subvol=@      0  0
UUID=${id[root]}  /home  btrfs  defaults,subvol=@home  0  0
UUID=${id[root]}  /var   btrfs  defaults,subvol=@var   0  0
UUID=${id[swap]}  none   swap   sw                     0  0
TABLE
        bios-lvm) cat <<TABLE ;;
/dev/mapper/ets-root  /      ext4  errors=remount-ro  0  1
UUID=${id[boot]}      /boot  ext4  defaults           0  2
/dev/mapper/ets-var   /var   ext4  defaults           0  2
/dev/mapper/ets-swap  none   swap  sw                 0  0
TABLE
        uefi-luks) cat <<TABLE ;;
/dev/mapper/system  /      ext4  errors=remount-ro  0  1
UUID=${id[boot]}    /boot  ext4  defaults           0  2
TABLE
        bios-md) cat <<TABLE ;;
UUID=${id[root]}  /  ext4  errors=remount-ro  0  1
TABLE
    esac
}

resume_device() {
    case $1 in
        *-lvm) echo /dev/mapper/ets-swap ;;
        *-luks | *-md) echo none ;;
        *) echo "UUID=${id[swap]}" ;;
    esac
}

# A server without a keyboard: the initramfs, which only root can read, holds the key.
write_crypttab() {
    local root=$1 key=/etc/cryptsetup-keys.d/system.key
    install -d -m 0700 "$root/etc/cryptsetup-keys.d"
    (umask 077 && head -c 64 /dev/urandom > "$root$key")
    echo "system  UUID=${id[luks]}  $key  luks,discard,initramfs" > "$root/etc/crypttab"
    echo 'KEYFILE_PATTERN="/etc/cryptsetup-keys.d/*.key"' >> "$root/etc/cryptsetup-initramfs/conf-hook"
    echo 'UMASK=0077' > "$root/etc/initramfs-tools/conf.d/umask"
}

# As mdadm writes a UUID.
array_uuid() { tr -d - <<< "${id[array]}" | sed -E 's/.{8}/&:/g; s/:$//'; }

# write_tables LAYOUT ROOT
write_tables() {
    local layout=$1 root=$2
    fstab "$layout" > "$root/etc/fstab"
    if [[ $layout == uefi-* ]]; then
        echo "UUID=${id[esp]}  /boot/efi  vfat  umask=0077  0  1" >> "$root/etc/fstab"
    fi
    echo "RESUME=$(resume_device "$layout")" > "$root/etc/initramfs-tools/conf.d/resume"
    case $layout in
        *-luks) write_crypttab "$root" ;;
        *-md)
            cat > "$root/etc/mdadm/mdadm.conf" <<TABLE
HOMEHOST <ignore>
MAILADDR root
ARRAY /dev/md0 metadata=1.2 UUID=$(array_uuid)
TABLE
            ;;
    esac
}
