// Programs of Windows and Linux, and pieces of them.
import "elf"
import "math"
import "pe"

// Acts on every rule of the family: nothing larger than this is looked at.
global private rule within_size
{
    condition:
        filesize < 32MB
}

private rule is_pe
{
    meta:
        description = "has the heads of a Windows program"
    condition:
        uint16(0) == 0x5A4D and uint32(uint32(0x3C)) == 0x00004550
}

private rule is_elf
{
    meta:
        description = "has the head of a Linux program"
    condition:
        uint32be(0) == 0x7F454C46
}

rule pe_irongannet_loader : executable
{
    meta:
        description = "IronGannet: loader for 64-bit Windows"
        author = "sigrel examples"
        reference = "https://reports.example/irongannet"
        severity = 9
    strings:
        $mutex = "Global\\IronGannet" wide
        $file = "gannet.dat" nocase ascii wide
        $call = { 48 8D 0D ?? ?? ?? ?? FF 15 ?? ?? ?? ?? }
    condition:
        is_pe and pe.machine == pe.MACHINE_AMD64 and pe.number_of_sections < 6 and all of them
}

rule pe_irongannet_section : executable
{
    meta:
        description = "IronGannet: section in which it keeps its payload"
        author = "sigrel examples"
        reference = "https://reports.example/irongannet"
        severity = 7
    condition:
        is_pe and for any i in (0..pe.number_of_sections - 1) : (
            pe.sections[i].name == ".gannet" and pe.sections[i].raw_data_size > 256
        )
}

rule pe_irongannet_packed : executable
{
    meta:
        description = "IronGannet: packed code, which is as good as random and may be run"
        author = "sigrel examples"
        reference = "https://reports.example/irongannet"
        severity = 5
    condition:
        is_pe and for any section in pe.sections : (
            section.name matches /^\.gp[0-9]$/
            and (section.characteristics & pe.SECTION_MEM_EXECUTE) != 0
            and math.entropy(section.raw_data_offset, section.raw_data_size) > 7.5
        )
}

rule pe_coldharbor_tail : executable
{
    meta:
        description = "ColdHarbor: orders appended to a program, with their length at the very end"
        author = "sigrel examples"
        reference = "https://reports.example/coldharbor"
        severity = 6
    strings:
        $orders = "CHBR-ORDERS"
    condition:
        is_pe and filesize > 1KB and $orders at (filesize - uint32(filesize - 4))
}

rule lnk_coldharbor : shortcut
{
    meta:
        description = "ColdHarbor: shortcut that starts a shell with an icon of a text file"
        author = "sigrel examples"
        reference = "https://reports.example/coldharbor"
        severity = 6
    strings:
        $shell = "cmd.exe /c harbor" wide nocase
        $icon = "notepad.exe,0" wide nocase
    condition:
        uint32(0) == 0x4C and uint32be(4) == 0x01140200 and (uint8(0x14) & 0x20) == 0x20 and all of them
}

rule elf_hollowreed_implant : executable linux
{
    meta:
        description = "HollowReed: implant for 64-bit Linux with a segment that may be written and run"
        author = "sigrel examples"
        reference = "https://reports.example/hollowreed"
        severity = 9
    strings:
        $socket = "/var/run/.reed" fullword
        $name = "[kreedd/0]"
    condition:
        is_elf and elf.type == elf.ET_EXEC and elf.machine == elf.EM_X86_64
        and for any segment in elf.segments : ( (segment.flags & 3) == 3 )
        and any of them
}

rule elf_hollowreed_section : executable linux
{
    meta:
        description = "HollowReed: section with its settings"
        author = "sigrel examples"
        reference = "https://reports.example/hollowreed"
        severity = 7
    condition:
        is_elf and for any i in (0..elf.number_of_sections - 1) : ( elf.sections[i].name == ".reedcfg" )
}

rule bin_hollowreed_config
{
    meta:
        description = "HollowReed: settings of either version, wherever they are"
        author = "sigrel examples"
        reference = "https://reports.example/hollowreed"
        severity = 5
    strings:
        $settings = { 48 52 43 46 ( 01 | 02 ) ?? ?? [2-6] DE AD BE ( EF | E? 00 ) }
    condition:
        $settings
}

rule bin_irongannet_channel
{
    meta:
        description = "IronGannet: name of its channel under any one-byte key, plain text aside"
        author = "sigrel examples"
        reference = "https://reports.example/irongannet"
        severity = 6
    strings:
        $hidden = "gannet-c2-channel" xor(1-255)
        $plain = "gannet-c2-channel"
    condition:
        $hidden and not $plain
}

rule bin_cobaltpebble_stub
{
    meta:
        description = "CobaltPebble: stub between two marks, with a call in it"
        author = "sigrel examples"
        reference = "https://reports.example/cobaltpebble"
        severity = 6
    strings:
        $marks = { 43 50 42 4C 01 [8-] 43 50 42 4C 02 }
        $call = { 4? 8B ?5 [0-4] ( E8 | FF 15 ) [4] 3D 0? 10 }
    condition:
        $marks and #call == 1 and $call in (@marks..@marks + 64)
}

rule bin_cobaltpebble_table
{
    meta:
        description = "CobaltPebble: table whose checksum is where it should be"
        author = "sigrel examples"
        reference = "https://reports.example/cobaltpebble"
        severity = 4
    strings:
        $table = "CPBT"
    condition:
        filesize >= 64 and filesize < 4KB and $table at 0
        and (uint16be(4) ^ uint16be(6)) == 0xFFFF
        and uint32(8) == filesize
        and (uint8(12) + uint8(13)) % 256 == uint8(14)
}

// Compiled by every engine, and yet not the same everywhere: see differences.yaml.
rule bin_sunkenbell_bare
{
    meta:
        description = "SunkenBell: its container without the Windows program that belongs at offset 64"
        author = "sigrel examples"
        reference = "https://reports.example/sunkenbell"
        severity = 4
    strings:
        $bell = "SBELL\x00\x01"
    condition:
        $bell at 0 and not uint16(64) == 0x5A4D
}
