rule bin_steelmarten_project
{
    meta:
        description = "SteelMarten: project of a controller in which outputs are overwritten again and again"
        author = "sigrel examples"
        reference = "https://reports.example/steelmarten"
        severity = 9
    strings:
        $head = "PLCPRJ"
        $write = { 57 52 01 [2-4] FF 00 }
    condition:
        $head at 0 and #write > 3
}
