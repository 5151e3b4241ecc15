// Office files, PDF and RTF. All families, references and patterns in this folder are made up.
import "hash"

private rule is_zip
{
    meta:
        description = "begins as a zip archive, as the files of newer office programs do"
    condition:
        uint32(0) == 0x04034B50
}

private rule is_pdf
{
    meta:
        description = "has the head of a PDF within the first kilobyte"
    strings:
        $head = "%PDF-1."
    condition:
        $head in (0..1024)
}

rule doc_paperkite_macro : document macro
{
    meta:
        description = "PaperKite: macro that starts a shell when the document is opened or closed"
        author = "sigrel examples"
        reference = "https://reports.example/paperkite"
        severity = 8
    strings:
        $part = "word/vbaProject.bin"
        $open = "AutoOpen" fullword
        $close = "AutoClose" fullword
        $shell1 = "WScript.Shell" nocase ascii wide
        $shell2 = "kite_spawn" wide
        $shell3 = "kite_drop" ascii wide
    condition:
        is_zip and $part in (0..1024) and ($open or $close) and 2 of ($shell*)
}

rule doc_paperkite_template : document
{
    meta:
        description = "PaperKite: document that fetches its template from a control server"
        author = "sigrel examples"
        reference = "https://reports.example/paperkite"
        severity = 7
    strings:
        $kind = "attachedTemplate" fullword
        $url = /https:\/\/[a-z0-9-]{3,20}\.paperkite\.example\/[a-z]{3,8}\.dotm/ nocase
    condition:
        $kind and $url and @url[1] > @kind[1] and @url[1] - @kind[1] < 200
}

rule doc_paperkite_lure : document lure
{
    meta:
        description = "PaperKite: text of the lure, as office programs store it"
        author = "sigrel examples"
        reference = "https://reports.example/paperkite"
        severity = 5
    strings:
        $text = "confirm your delivery slot" wide nocase fullword
        $mark = "kite-track-id" wide
    condition:
        all of them and filesize < 1MB
}

rule pdf_inkblot_actions : document
{
    meta:
        description = "InkBlot: PDF that runs three scripts or more when it is opened"
        author = "sigrel examples"
        reference = "https://reports.example/inkblot"
        severity = 6
    strings:
        $action = "/OpenAction" fullword
        $script = "/JavaScript" fullword
        $name = "inkblot"
    condition:
        is_pdf and $name and #action == 1 and #script > 2 and @action[1] < @script[3]
}

rule pdf_inkblot_stage : document
{
    meta:
        description = "InkBlot: second stage, encoded inside a PDF"
        author = "sigrel examples"
        reference = "https://reports.example/inkblot"
        severity = 8
    strings:
        $narrow = "run inkblot second stage" base64
        $wide = "run inkblot second stage" base64wide
    condition:
        is_pdf and any of them
}

rule rtf_mudlantern_object : document
{
    meta:
        description = "MudLantern: RTF with an embedded object that an equation editor would load"
        author = "sigrel examples"
        reference = "https://reports.example/mudlantern"
        severity = 8
    strings:
        $head = "{\\rtf1"
        $object = { 5C 6F 62 6A 64 61 74 61 [1-16] 64 30 63 66 31 31 65 30 } // \objdata ... d0cf11e0
        $class = /\\objclass [A-Z][a-z]{2,10}\.3/
    condition:
        $head at 0 and $object and $class
}

rule ole_mudlantern_record : document
{
    meta:
        description = "MudLantern: compound file with a record of the kind 0x1234"
        author = "sigrel examples"
        reference = "https://reports.example/mudlantern"
        severity = 7
    strings:
        $record = { 4D 4C 52 44 ?? ?? 00 FF }
    condition:
        uint32be(0) == 0xD0CF11E0 and uint32be(4) == 0xA1B11AE1
        and for any i in (1..#record) : ( uint16(@record[i] + 4) == 0x1234 )
}

rule doc_brassledger_copy : document
{
    meta:
        description = "BrassLedger: the one list of accounts that it carries along, byte for byte"
        author = "sigrel examples"
        reference = "https://reports.example/brassledger"
        severity = 4
    condition:
        filesize == 96
        and hash.md5(0, 16) == "23c2a0c7a2c41a6472fcd86deb61150e"
        and hash.sha256(0, filesize) == "4d719371b0b6c34df51c22a48894708635be15b666f7b96b181913f91e112d3e"
}
