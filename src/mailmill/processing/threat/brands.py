"""Names that are often worn by others, and the domains that their owners send and host from. Data, no code paths.

A brand is *distinctive* if its name means nothing else: then it counts wherever it stands in a display name. A name
that is also a word or a surname (Chase, Orange, Apple) counts only where it is the whole name but for words such as
"support".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Brand:
    """``names`` in lower case, first the one to show; ``domains`` are organisational domains of the owner."""

    names: tuple[str, ...]
    domains: tuple[str, ...]
    distinctive: bool = True

    @property
    def name(self) -> str:
        return self.names[0]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _brands(table: str, *, distinctive: bool) -> tuple[Brand, ...]:
    brands = []
    for line in table.strip().replace("\n    ", " ").splitlines():
        names, _, domains = line.partition("|")
        brands.append(
            Brand(tuple(name.strip() for name in names.split(",")), tuple(domains.split()), distinctive=distinctive)
        )
    return tuple(brands)


_DISTINCTIVE = """
microsoft, office 365, office365, microsoft 365, outlook.com, onedrive, sharepoint, hotmail | microsoft.com
    office.com office365.com live.com outlook.com hotmail.com microsoftonline.com sharepoint.com onedrive.com
    azure.com windows.com skype.com xbox.com msn.com microsoftstore.com office.net microsoft365.com
google, gmail, google drive, google play | google.com gmail.com googlemail.com youtube.com googleapis.com
    android.com goo.gl google-analytics.com
youtube | youtube.com google.com
amazon, amazon prime, amazon web services | amazon.com amazon.co.uk amazon.de amazon.fr amazon.it amazon.es
    amazon.co.jp amazon.com.br amazon.in amazon.ca amazonaws.com amazonses.com images-amazon.com amazon-adsystem.com
    amazon.com.au amazon.com.mx amazon.nl amazon.se amazon.pl
icloud, apple id, itunes, app store | apple.com icloud.com me.com mac.com itunes.com
facebook | facebook.com facebookmail.com meta.com fb.com metamail.com
instagram | instagram.com facebookmail.com meta.com
whatsapp | whatsapp.com facebook.com meta.com
tiktok | tiktok.com bytedance.com tiktokv.com
snapchat | snapchat.com
linkedin | linkedin.com licdn.com
twitter | twitter.com x.com
telegram messenger | telegram.org
netflix | netflix.com nflxext.com
spotify | spotify.com
disney+, disney plus, disneyplus | disneyplus.com disney.com
paramount+, paramount plus | paramountplus.com paramount.com
paypal | paypal.com paypal-communication.com paypal.de paypal.co.uk paypal.fr paypal.me
stripe payments | stripe.com
cash app, cashapp | cash.app square.com
venmo | venmo.com
western union, westernunion | westernunion.com
moneygram | moneygram.com
coinbase | coinbase.com
binance | binance.com
metamask | metamask.io consensys.io
trust wallet, trustwallet | trustwallet.com
trezor | trezor.io satoshilabs.com
opensea | opensea.io
ethereum, ethereum foundation | ethereum.org
tether | tether.to
ripple, xrp ledger | ripple.com xrpl.org
uniswap | uniswap.org
pancakeswap | pancakeswap.finance
solana | solana.com solana.org
cardano | cardano.org cardanofoundation.org
bitpanda | bitpanda.com
debank | debank.com
zalando | zalando.com zalando.de zalando.fr
edeka | edeka.de
rewe | rewe.de rewe-group.com
otto versand | otto.de
mediamarkt, media markt | mediamarkt.de mediamarkt.com mediamarktsaturn.com
decathlon | decathlon.com decathlon.fr decathlon.net
leroy merlin | leroymerlin.fr leroymerlin.com
mercado livre, mercadolivre, mercado libre, mercadolibre | mercadolivre.com.br mercadolibre.com mercadopago.com
magazine luiza, magalu | magazineluiza.com.br magalu.com
red bull | redbull.com
harbor freight | harborfreight.com
tractor supply | tractorsupply.com
sam's club | samsclub.com
cash app pay | cash.app
adac | adac.de
allianz | allianz.com allianz.de
deutsche bahn | bahn.de bahn.com deutschebahn.com
lufthansa | lufthansa.com miles-and-more.com
ryanair | ryanair.com
southwest airlines | southwest.com
delta air lines | delta.com
blockchain.com | blockchain.com
crypto.com | crypto.com
robinhood markets | robinhood.com
american express, amex, americanexpress | americanexpress.com aexp.com
mastercard | mastercard.com
wells fargo, wellsfargo | wellsfargo.com
bank of america, bankofamerica, bofa | bankofamerica.com bofa.com
citibank, citigroup | citi.com citibank.com
capital one, capitalone | capitalone.com
hsbc | hsbc.com hsbc.co.uk
barclays | barclays.com barclays.co.uk barclaycard.co.uk
natwest | natwest.com
santander | santander.com santander.co.uk santander.com.br gruposantander.es bancosantander.es santander.cl
bradesco | bradesco.com.br
itaú, banco itau, itau unibanco | itau.com.br itau-unibanco.com.br
banco do brasil | bb.com.br
nubank | nubank.com.br
caixa econômica, caixa econômica federal | caixa.gov.br
bbva | bbva.com bbva.es bbva.mx
bancolombia | bancolombia.com.co bancolombia.com
commerzbank | commerzbank.de commerzbank.com
deutsche bank | db.com deutsche-bank.de
postbank | postbank.de
comdirect | comdirect.de
n26 | n26.com
ing-diba | ing.de ing.com
bnp paribas | bnpparibas.com bnpparibas.net mabanque.bnpparibas
crédit agricole, credit agricole | credit-agricole.fr credit-agricole.com
la banque postale | labanquepostale.fr
société générale, societe generale | societegenerale.fr societegenerale.com socgen.com
boursorama | boursorama.com boursorama.fr
poste italiane, postepay | poste.it posteitaliane.it postepay.it
intesa sanpaolo | intesasanpaolo.com
unicredit | unicredit.it unicreditgroup.eu
rabobank | rabobank.nl rabobank.com
abn amro | abnamro.nl abnamro.com
mashreq | mashreq.com mashreqbank.com
emirates nbd | emiratesnbd.com
standard chartered | sc.com standardchartered.com
commonwealth bank, commbank | commbank.com.au cba.com.au
westpac | westpac.com.au
rbc royal bank, royal bank of canada | rbc.com royalbank.com
interac | interac.ca
fedex | fedex.com
dhl, dhl express | dhl.com dhl.de dpdhl.com deutschepost.de dhlparcel.nl dhl.fr
usps, us postal service | usps.com usps.gov
royal mail, royalmail | royalmail.com royalmail.co.uk
deutsche post | deutschepost.de dhl.de
la poste, laposte, colissimo | laposte.fr laposte.net laposte.info
chronopost | chronopost.fr
correios | correios.com.br
canada post | canadapost.ca canadapost-postescanada.ca
australia post, auspost | auspost.com.au
postnl | postnl.nl
bpost | bpost.be
evri | evri.com
docusign | docusign.com docusign.net
adobe, adobe sign | adobe.com adobesign.com echosign.com
dropbox | dropbox.com dropboxmail.com
wetransfer | wetransfer.com
godaddy | godaddy.com secureserver.net
namecheap | namecheap.com
cpanel | cpanel.net
zimbra | zimbra.com
roundcube | roundcube.net
norton, nortonlifelock, norton lifelock, norton antivirus | norton.com nortonlifelock.com gendigital.com
mcafee | mcafee.com
kaspersky | kaspersky.com
geek squad | bestbuy.com geeksquad.com
ebay | ebay.com ebay.de ebay.co.uk ebay.fr ebay.it
aliexpress | aliexpress.com alibaba.com
alibaba | alibaba.com
walmart | walmart.com
costco | costco.com costco.ca
home depot | homedepot.com
lowe's | lowes.com
best buy, bestbuy | bestbuy.com
kohl's, kohls | kohls.com
walgreens | walgreens.com
cvs pharmacy | cvs.com
starbucks | starbucks.com
mcdonald's, mcdonalds | mcdonalds.com mcdonalds.de
ikea | ikea.com
lidl | lidl.de lidl.com lidl.fr
aldi | aldi.de aldi.com aldi-sued.de aldi-nord.de aldi.us
carrefour | carrefour.com carrefour.fr
shein | shein.com
temu | temu.com
airbnb | airbnb.com
booking.com | booking.com
steam, steampowered | steampowered.com valvesoftware.com steamcommunity.com
roblox | roblox.com
playstation | playstation.com sony.com
nintendo | nintendo.com nintendo.net
verizon | verizon.com verizonwireless.com vzw.com
t-mobile | t-mobile.com telekom.de t-mobile.nl
at&t | att.com att.net
comcast, xfinity | comcast.com comcast.net xfinity.com
vodafone | vodafone.com vodafone.de vodafone.co.uk vodafone.it vodafone.es
telekom deutschland, deutsche telekom | telekom.de t-online.de telekom.com
telstra | telstra.com telstra.com.au
ionos | ionos.com ionos.de 1und1.de
strato | strato.de strato.com
ovhcloud | ovh.com ovhcloud.com ovh.net
aramco | aramco.com
unicef | unicef.org
internal revenue service | irs.gov
hmrc | hmrc.gov.uk
elster | elster.de
ameli, assurance maladie | ameli.fr assurance-maladie.fr
ledger live | ledger.com
exodus wallet | exodus.com
state farm | statefarm.com
blue cross | bcbs.com
louis vuitton | louisvuitton.com
ray-ban, rayban | ray-ban.com
saatva | saatva.com
samsung | samsung.com
github | github.com githubapp.com
gitlab | gitlab.com
slack technologies | slack.com
zoom video | zoom.us zoom.com
wordpress.com | wordpress.com automattic.com
yahoo, yahoo mail | yahoo.com yahoo-inc.com yahooinc.com yahoo.co.jp yahoo.fr yahoo.co.uk
protonmail, proton mail | proton.me protonmail.com
"""

_WORDS = """
sparkasse | sparkasse.de sparkasse.com
volksbank | vr.de volksbank.de
apple | apple.com icloud.com me.com
chase, jpmorgan, jp morgan | chase.com jpmorgan.com jpmchase.com
citi | citi.com citibank.com
discover | discover.com
orange | orange.fr orange.com
ing | ing.com ing.de ing.nl
ups | ups.com
dpd | dpd.com dpd.de dpd.co.uk dpdgroup.com dpd.fr
hermes | hermesworld.com myhermes.de
gls | gls-group.com gls-group.eu
target | target.com
shell | shell.com
visa | visa.com
meta | meta.com facebook.com facebookmail.com metamail.com
square | squareup.com square.com
wise | wise.com
revolut | revolut.com
zelle | zellepay.com
klarna | klarna.com
ledger | ledger.com
kraken | kraken.com
exodus | exodus.com
itau | itau.com.br
free | free.fr
telekom | telekom.de t-online.de telekom.com
bell | bell.ca
ace hardware | acehardware.com
irs | irs.gov
hulu | hulu.com
zoom | zoom.us zoom.com
stripe | stripe.com
tinder | gotinder.com tinder.com
"""

BRANDS: tuple[Brand, ...] = (*_brands(_DISTINCTIVE, distinctive=True), *_brands(_WORDS, distinctive=False))

# Words around a brand's name that make it no other thing: "Apple Support Team", "Ihr DHL Kundenservice".
FILLER_WORDS: frozenset[str] = _words("""
    a account accounts admin administrator alert alerts alerte app aviso bank banking billing care center centre cliente
    clientes client com company confirmation contact corp customer customerservice customercare delivery department dept
    desk email express from global group help helpdesk inc info information international invoice kundenservice
    kundendienst ihr le login ltd mail mailer manager member membership message my news no noreply notice notification
    notifications of official online order orders our parcel password payment payments portal prime promo rewards reward
    reply secure security serveur service services servicio servico soporte store subscription suivi support system team
    tech technical the tracking update updates us verify verification wallet web winner your
""")
