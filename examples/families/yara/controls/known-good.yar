// Every engine must accept these rules, and both must alert on control.bin.
rule control_text
{
    strings:
        $text = "SIGREL-CONTROL"
    condition:
        $text at 0
}

rule control_wide
{
    strings:
        $text = "SIGREL CONTROL" wide nocase
        $end = { 00 01 ?? 03 }
    condition:
        all of them and filesize < 1KB
}
