// Every engine must refuse this rule: nobody says what $undefined is. An engine that takes it does not test anything.
rule control_undefined
{
    strings:
        $text = "SIGREL-CONTROL"
    condition:
        $text and $undefined
}
