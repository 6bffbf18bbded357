"""What the family ``pictures`` looks up: addresses that codes honestly hold, words that ask for a scan or a sign-in.
Data only."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(one.strip() for line in text.strip().splitlines() for one in line.split("|"))


# Where codes lead that anybody prints: stores of apps, profiles, meetings, maps.
CODE_HOSTS: frozenset[str] = _words("""
    apps.apple.com itunes.apple.com testflight.apple.com maps.apple.com wallet.apple.com play.google.com
    maps.google.com maps.app.goo.gl g.page meet.google.com wa.me api.whatsapp.com t.me instagram.com www.instagram.com
    facebook.com www.facebook.com linkedin.com www.linkedin.com youtube.com www.youtube.com youtu.be twitter.com x.com
    open.spotify.com apps.microsoft.com eventbrite.com www.eventbrite.com teams.microsoft.com zoom.us
    appgallery.huawei.com galaxystore.samsung.com
    """)

# As parts of words, in lower case: a message that wants a code to be scanned …
SCAN_WORDS: tuple[str, ...] = _phrases("""
    scan | qr code | qr-code | qrcode | barcode | phone camera | phone's camera | smartphone | mobile device
    handykamera | scannez | appareil photo | escane | código qr | inquadra | câmera | skann | zeskanuj | отскан
    扫描 | 掃描 | 扫码 | スキャン | 스캔
    """)

# … and asks its reader to prove who they are, or shows what they can't leave alone.
SIGN_IN_WORDS: tuple[str, ...] = _phrases("""
    password | passcode | authenticator | re-authenticat | reauthenticat | authentication | two-factor | 2fa | mfa
    multi-factor | multifactor | verify your | verify account | account verification | will expire | about to expire
    expires today | has expired | be suspended | be deactivated | be disabled | be locked | credentials
    secure document
    shared document | document has been shared | shared a file | docusign | e-sign | to sign | payroll | salary
    remittance | voicemail | passwort | kennwort | gesperrt | läuft ab | bestätigen sie | gehaltsab | mot de passe
    vérifiez | va expirer | suspendu | bulletin de paie | contraseña | verifique | caduca | suspendid | nómina
    verifica il | in scadenza | sospes | senha | holerite | suspens | wachtwoord | verloopt | hasło | wygasa | пароль
    подтверд | заблокир | 密码 | 密碼 | 验证 | 驗證 | パスワード | 本人確認 | 비밀번호
    """)
