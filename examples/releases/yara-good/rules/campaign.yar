import "pe"

rule js_copperfinch_relay : script javascript
{
    meta:
        description = "CopperFinch: talks to its relay"
        author = "sigrel examples"
        reference = "https://reports.example/copperfinch"
        severity = 7
    strings:
        $relay = /wss:\/\/[a-z0-9-]{3,12}\.finch\.example\/relay/
        $key = "finchRelayKey" fullword
    condition:
        all of them
}

rule pe_irongannet_updater : executable
{
    meta:
        description = "IronGannet: brings its loader up to date"
        author = "sigrel examples"
        reference = "https://reports.example/irongannet"
        severity = 8
    strings:
        $name = "gannet-update" wide
    condition:
        is_pe and pe.machine == pe.MACHINE_AMD64 and $name
}
