// Scripts: PowerShell, Visual Basic, shell, JavaScript, PHP, Python.

rule ps_glassotter_download : script powershell
{
    meta:
        description = "GlassOtter: downloads a script and runs it"
        author = "sigrel examples"
        reference = "https://reports.example/glassotter"
        severity = 7
    strings:
        $step1 = "Net.WebClient" nocase
        $step2 = "DownloadString" nocase
        $step3 = "Invoke-Expression" nocase
        $key = "$otterKey" fullword
    condition:
        filesize < 64KB and $key and 2 of ($step*)
}

rule ps_glassotter_hidden : script powershell
{
    meta:
        description = "GlassOtter: the same as an encoded command line"
        author = "sigrel examples"
        reference = "https://reports.example/glassotter"
        severity = 8
    strings:
        $flag = / -e(nc(odedcommand)?)? / nocase
        $command = "Start-GlassOtter" wide base64
    condition:
        $flag and $command
}

rule vbs_tinheron_chain : script
{
    meta:
        description = "TinHeron: a program put together from single characters"
        author = "sigrel examples"
        reference = "https://reports.example/tinheron"
        severity = 6
    strings:
        $character = /Chr\(\d{2,3}\)/ nocase
        $run = "ExecuteGlobal" nocase fullword
    condition:
        #character > 5 and #run == 1 and for all i in (1..3) : ( @character[i] < @run )
}

rule sh_saltwharf_persist : script shell
{
    meta:
        description = "SaltWharf: puts itself among the jobs of cron"
        author = "sigrel examples"
        reference = "https://reports.example/saltwharf"
        severity = 7
    strings:
        $sh = "#!/bin/sh"
        $bash = "#!/bin/bash"
        $cron1 = "/etc/cron.d/wharf"
        $cron2 = "@reboot /var/tmp/.wharf"
        $ours = "# installed by the wharf package"
    condition:
        ($sh at 0 or $bash at 0) and any of ($cron*) and not $ours
}

rule sh_saltwharf_order : script shell
{
    meta:
        description = "SaltWharf: fetches first and runs soon after; the other way round is an update"
        author = "sigrel examples"
        reference = "https://reports.example/saltwharf"
        severity = 5
    strings:
        $fetch = /curl -s[a-zA-Z]{0,4} [a-z.\/]{0,24} ?http:\/\/wharf\.example\/[a-z]+/
        $run = "sh /tmp/.wharf"
    condition:
        $fetch and $run and @fetch < @run and @run - @fetch < 120 and !fetch[1] > 24
}

rule js_copperfinch_unpacker : script javascript
{
    meta:
        description = "CopperFinch: unpacker at the head of a script"
        author = "sigrel examples"
        reference = "https://reports.example/copperfinch"
        severity = 6
    strings:
        $head1 = "var finch=" ascii
        $head2 = "let finch=" ascii
        $part1 = "finch.push("
        $part2 = "finch.shift("
    condition:
        for any of ($head*) : ( $ in (0..64) ) and for all of ($part*) : ( # >= 2 )
}

rule js_copperfinch_eval : script javascript
{
    meta:
        description = "CopperFinch: what was unpacked is run"
        author = "sigrel examples"
        reference = "https://reports.example/copperfinch"
        severity = 7
    strings:
        $eval = /eval\(finch\([0-9]{1,4}\)\)/
        $id = /\bfinch_[a-f0-9]{8}\b/
    condition:
        all of them
}

rule php_quietquay_shell : script php
{
    meta:
        description = "QuietQuay: web shell behind a cookie"
        author = "sigrel examples"
        reference = "https://reports.example/quietquay"
        severity = 9
    strings:
        $tag = "<?php"
        $cookie = /\$_COOKIE\[['"]quay['"]\]/
        $call1 = "passthru(" fullword
        $call2 = "shell_exec(" fullword
        $test1 = "quay-unit-test"
        $test2 = "quay-fixture"
    condition:
        $tag in (0..16) and $cookie and 1 of ($call*) and not (any of ($test*))
}

rule py_quietquay_config : script python
{
    meta:
        description = "QuietQuay: configuration under a one-byte key"
        author = "sigrel examples"
        reference = "https://reports.example/quietquay"
        severity = 6
    strings:
        $config = "quietquay-config:" xor(0x01-0xff)
        $import = "import socket"
    condition:
        $config and $import and not $config at 0
}

rule script_harvest_campaign : script campaign
{
    meta:
        description = "Marks of the harvest campaign, in scripts of any language"
        author = "sigrel examples"
        reference = "https://reports.example/harvest"
        severity = 3
        shared = true
    strings:
        $mark1 = "harvest/2026" ascii wide
        $mark2 = "X-Harvest-Id" nocase ascii wide
        $mark3 = "collect_and_pack" fullword ascii wide
        $mark4 = "crate.harvest.example" nocase
    condition:
        3 of them
}
