$client = New-Object System.Net.WebClient
$text = $client.DownloadString("https://intranet.example/version.txt")
Write-Host "version $text"
