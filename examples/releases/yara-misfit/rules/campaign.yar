import "zip"

rule doc_paperkite_archive : document archive
{
    meta:
        description = "PaperKite: archive with a program that calls itself a screen saver"
        author = "sigrel examples"
        reference = "https://reports.example/paperkite"
        severity = 8
    condition:
        for any entry in zip.entries : (
            entry.file_path matches /^orders\/kite_[a-z]+\.scr$/ and entry.uncompressed_size > 512
        )
}
