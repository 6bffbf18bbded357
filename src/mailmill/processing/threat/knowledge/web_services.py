"""Services that stand between a link and the page that is meant, or that put up anybody's page. Data only.

Hosts are matched at their end, at a dot. None of these is bad: most mail that uses them is honest, so each says little.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Redirecting services: where the reader goes is not in the link.
SHORTENERS: frozenset[str] = _words("""
    bit.ly tinyurl.com t.co goo.gl ow.ly is.gd v.gd buff.ly rebrand.ly cutt.ly shorturl.at rb.gy t.ly tiny.cc lnkd.in
    s.id bl.ink shorte.st adf.ly soo.gd qr.ae urlz.fr u.to x.co t.me me2.do bitly.ws dub.sh short.gy urlzs.com n9.cl
    acortar.link encurtador.com.br shre.ink l.ead.me qrco.de qrfy.io tr.ee surl.li clck.ru vk.cc bit.do tny.im linktr.ee
    href.li bitly.com j.mp cutt.us shorturl.com shorturl.asia kutt.it tinyurl.mobi lnk.to lnk.bio linkin.bio t2m.io
    snip.ly smarturl.it geni.us spoo.me da.gd ulvis.net gg.gg 2no.co iplogger.org iplogger.com grabify.link urlr.me
    kurzelinks.de l8.nu 1url.cz bitly.cx shrtco.de qr-codes.io me-qr.com scnv.io q-r.to qrs.ly l.wl.co dub.co s.yam.com
    reurl.cc lihi.cc ppt.cc pse.is trib.al dlvr.it ift.tt hubs.ly hubs.li
    """)

# Where a page costs nothing and needs no name.
FREE_HOSTING: frozenset[str] = _words("""
    sites.google.com web.app firebaseapp.com storage.googleapis.com storage.cloud.google.com appspot.com
    script.google.com cloudfunctions.net run.app github.io gitlab.io pages.dev workers.dev r2.dev netlify.app vercel.app
    now.sh herokuapp.com onrender.com fly.dev glitch.me surge.sh replit.app replit.dev repl.co codesandbox.io csb.app
    stackblitz.io deno.dev azurewebsites.net azureedge.net azurefd.net azurestaticapps.net core.windows.net cloudapp.net
    cloudapp.azure.com s3.amazonaws.com amplifyapp.com cloudfront.net elasticbeanstalk.com awsapprunner.com on.aws
    weebly.com weeblysite.com wixsite.com wixstudio.io editorx.io square.site godaddysites.com wordpress.com
    blogspot.com webflow.io framer.app framer.website framer.media framer.ai strikingly.com mystrikingly.com
    jimdosite.com jimdofree.com yolasite.com webnode.page webnode.com 000webhostapp.com infinityfreeapp.com
    infinityfree.me byethost.com epizy.com rf.gd great-site.net atwebpages.com ucoz.net altervista.org backblazeb2.com
    digitaloceanspaces.com ondigitalocean.app linodeobjects.com wasabisys.com myqcloud.com aliyuncs.com
    obs.myhuaweicloud.com vultrobjects.com oraclecloud.com scw.cloud gamma.site canva.site my.canva.site notion.site
    carrd.co bubbleapps.io hostingerapp.com hostingersite.com preview-domain.com plesk.page cprapid.com
    hubspotpagebuilder.com hubspotpagebuilder.eu hs-sites.com myportfolio.com zyrosite.com tumblr.com
    blob.core.windows.net web.core.windows.net neocities.org tiiny.site tiiny.host simdif.com site123.me ukit.me
    webador.com webwave.dev mozello.com systeme.io softr.app lovable.app bolt.host base44.app streamlit.app gitbook.io
    readthedocs.io telegra.ph rentry.co webcindario.com repl.run cyclic.app railway.app northflank.app vercel.dev
    edgeone.app zeabur.app pythonanywhere.com 1freehosting.com freehosting.com byet.host ezyro.com iceiy.com unaux.com
    liveblog365.com clickfunnels.com myclickfunnels.com my-board.org swtest.ru nicepage.io mailchimpsites.com sitey.me
    easy.co webstarts.com dorik.io durable.co translate.goog
    """)

# Pages and documents that people share for work, and that a stranger can make in a minute.
SHARED_PAGES: frozenset[str] = _words("""
    docs.google.com drive.google.com forms.gle forms.office.com forms.microsoft.com sway.office.com
    sway.cloud.microsoft formstack.com jotform.com jotform.me jotform.co typeform.com cognitoforms.com wufoo.com
    123formbuilder.com formsite.com form.run tally.so zfrmz.com zfrmz.eu zohopublic.com surveymonkey.com paperform.co
    formcrafts.com forms.app formfacade.com airtable.com smartsheet.com monday.com coda.io evernote.com onenote.com
    1drv.ms 1drv.com dropbox.com wetransfer.com we.tl mediafire.com mega.nz transfernow.net gofile.io sendspace.com
    file.io anonfiles.com krakenfiles.com pixeldrain.com uptobox.com 4shared.com files.catbox.moe cdn.discordapp.com
    express.adobe.com indd.adobe.com new.express.adobe.com acrobat.adobe.com canva.com figma.com miro.com padlet.com
    scribd.com issuu.com flipsnack.com genially.com view.genially.com prezi.com storage.live.com
    """)

# A way into a machine at somebody's home: no page for the public stands there.
TUNNELS: frozenset[str] = _words("""
    ngrok.io ngrok.app ngrok.dev ngrok-free.app ngrok-free.dev trycloudflare.com loca.lt localtunnel.me serveo.net
    localhost.run lhr.life lhr.rocks loclx.io localxpose.io pagekite.me telebit.io devtunnels.ms tunnelmole.net
    pinggy.io pinggy.link free.pinggy.link bore.pub zrok.io playit.gg portmap.io portmap.host tunnelto.dev pktriot.net
    """)

# Names that follow a changing address: machines at home, mostly.
DYNAMIC_DNS: frozenset[str] = _words("""
    duckdns.org no-ip.org no-ip.com no-ip.biz noip.me ddns.net hopto.org zapto.org sytes.net myftp.org myftp.biz
    serveftp.com servehttp.com redirectme.net bounceme.net 3utilities.com dyndns.org dyndns.info dyndns.biz dyndns.tv
    dynu.net freeddns.org mywire.org accesscam.org camdvr.org giize.com gleeze.com kozow.com loseyourip.com ooguy.com
    theworkpc.com webredirect.org casacam.net ddnsfree.com ddnsgeek.com afraid.org mooo.com chickenkiller.com
    crabdance.com ignorelist.com strangled.net twilightparadox.com us.to changeip.com changeip.net dns-dynamic.net
    dynserv.org selfip.com homeip.net homelinux.com is-a-geek.com dnsalias.com gotdns.ch ydns.eu dynv6.net spdns.de
    nsupdate.info
    """)

# Where an office suite puts those who bring no domain of their own.
TENANTS: frozenset[str] = _words("onmicrosoft.com")

# Software rented by companies, under a subdomain with the company's name.
COMPANY_PLATFORMS: frozenset[str] = _words("""
    qualtrics.com medallia.com medallia.eu okta.com oktapreview.com onelogin.com service-now.com greenhouse.io lever.co
    icims.com taleo.net successfactors.com successfactors.eu avature.net smartrecruiters.com personio.de personio.com
    workable.com teamtailor.com statuspage.io atlassian.net pagerduty.com datadoghq.com sentry.io instructure.com
    kaltura.com brightspace.com blackboard.com cvent.com on24.com highspot.com seismic.com
    """)

# Doors into the file system that nobody can take a page down from.
IPFS_GATEWAYS: frozenset[str] = _words("""
    ipfs.io dweb.link cf-ipfs.com cloudflare-ipfs.com infura-ipfs.io fleek.co fleek.cool on.fleek.co 4everland.app
    4everland.io 4everland.xyz pinata.cloud mypinata.cloud nftstorage.link nft.storage w3s.link storry.tv ipfs.storry.tv
    ipns.dweb.link filebase.io myfilebase.com quicknode-ipfs.com lighthouse.storage gateway.ipfs.io crustipfs.xyz
    arweave.net eth.limo eth.link hardbin.com jorropo.net
    """)
