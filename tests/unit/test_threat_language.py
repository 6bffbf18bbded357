"""Family language: lures in several languages, and honest mail that says nearly the same."""

from __future__ import annotations

import pytest
from threat_mail import NOTHING, OWN, PROVEN, SERVER, context, found, mail, verdict

from mailmill.model import SenderHistory
from mailmill.processing.threat.context import prepare
from mailmill.processing.threat.engine import assess
from mailmill.processing.threat.families.language import DETECTORS
from mailmill.processing.threat.knowledge.lures import read_lures
from mailmill.processing.threat.scoring import DEFAULT_TABLE

STRANGER = "Lena Ott <lena@meadow-farm.com>"
FREE = "Lena Ott <lena.ott@gmail.com>"

LURES = [
    ("credential_urgency", "Your mailbox account will be suspended within 24 hours. Click here to keep it."),
    ("credential_urgency", "We noticed an unusual sign-in. Verify your identity immediately to avoid losing access."),
    ("credential_urgency", "Ihr Konto wurde gesperrt. Bitte bestätigen Sie Ihre Daten innerhalb von 48 Stunden."),
    ("credential_urgency", "Votre compte sera suspendu. Cliquez ici sous 24 heures pour l'éviter."),
    ("credential_urgency", "Su cuenta ha sido bloqueada. Haga clic aquí en las próximas 24 horas."),
    ("credential_urgency", "Sua conta foi bloqueada. Clique no link em até 24 horas."),
    ("credential_urgency", "Il tuo account è stato sospeso. Clicca qui entro 24 ore."),
    ("credential_urgency", "Uw rekening is geblokkeerd. Klik hier binnen 24 uur."),
    ("credential_urgency", "Twoje konto zostało zablokowane. Kliknij tutaj natychmiast."),
    ("credential_urgency", "アカウントの利用を停止しました。24時間以内に下記のリンクよりお手続きください。"),
    ("credential_urgency", "您的账户已被暂停，请在24小时内点击链接进行验证。"),
    ("credential_urgency", "Yоur аccоunt wiII be suspеnded within 24 hоurs. CIick here."),
    ("account_notice", "Your profile has been restricted. Please verify your information on our page."),
    ("account_notice", "Someone tried to log in to your account from another country. Review your activity."),
    ("account_notice", "Your password is expiring. Use the button: keep same password."),
    ("verification_pressed", "Dear customer, please validate your data before tomorrow."),
    ("verification_pressed", "Dear user, click here immediately, action is required."),
    ("verification_pressed", "Estimado cliente, actualice sus datos inmediatamente."),
    ("mailbox_notice", "You have 6 undelivered messages. Release messages now."),
    ("mailbox_notice", "Your mailbox is almost full. Upgrade your quota here."),
    ("mailbox_notice", "Your incoming mails are pending. Click here to retrieve all."),
    ("payment_failed", "Your payment was declined. Update your billing details."),
    ("payment_failed", "We were unable to renew your membership. Update your payment method."),
    ("payment_failed", "Votre paiement a été refusé. Veuillez mettre à jour vos coordonnées bancaires."),
    ("secrets_asked", "Reply with your user name and password to keep the mailbox."),
    ("secrets_asked", "Kindly send the following: date of birth, card number."),
    ("secrets_asked", "Fill the form below: password, mobile."),
    ("bank_change", "We have changed our bank details. Send the payment to the new account below."),
    ("bank_change", "I want to update my direct deposit before the next payroll."),
    ("bank_change", "Unsere neue Bankverbindung lautet so, bitte ab sofort verwenden."),
    ("document", "Please find attached the purchase order. Kindly confirm and quote."),
    ("document", "A document was shared with you. Click here to view it."),
    ("document", "Anbei die Rechnung, bitte den Anhang öffnen."),
    ("voicemail", "You have a new voice message from 0123. Play the message here."),
    ("voicemail", "Missed call. Listen here."),
    ("voicemail", "You received a fax of 3 pages. Click below to view."),
    ("parcel_fee", "Your parcel is held at the depot because of unpaid shipping fees. Pay the fee here."),
    ("parcel_fee", "Ihr Paket konnte nicht zugestellt werden. Bitte die Zollgebühr bezahlen."),
    ("parcel_fee", "Votre colis est en attente. Frais de livraison: veuillez payer."),
    ("parcel_fee", "Su paquete está retenido. Pague los gastos de aduana."),
    ("parcel_fee", "Sua encomenda está retida. Pague a taxa alfandegária."),
    ("parcel_fee", "Il tuo pacco è in giacenza. Clicca per pagare le spese di spedizione."),
    ("parcel_fee", "Uw pakket wordt vastgehouden. Betaal de verzendkosten."),
    ("parcel_fee", "Twoja paczka została wstrzymana. Opłać należność."),
    ("parcel_fee", "お荷物をお届けできませんでした。再配達はこちらをクリックしてください。"),
    ("parcel_fee", "您的包裹因地址不详无法派送，请点击链接更新地址。"),
    ("tax_refund", "You are eligible for a tax refund of 300. Claim your refund here."),
    ("tax_refund", "Finanzamt: Ihre Steuererstattung wartet. Bitte das Formular ausfüllen."),
    ("tax_refund", "Vous avez droit à un remboursement des impôts. Remplissez le formulaire."),
    ("prize", "Congratulations! You have won an iPhone. Claim your prize now."),
    ("prize", "You have been selected. Take a short survey and get a gift card."),
    ("prize", "Herzlichen Glückwunsch, Sie haben einen Gutschein gewonnen. Jetzt an der Umfrage teilnehmen."),
    ("prize", "Félicitations, vous avez gagné une carte cadeau. Cliquez."),
    ("prize", "Felicidades, ha ganado un premio. Reclame ahora."),
    ("prize", "Parabéns, você ganhou um prêmio. Clique para resgatar."),
    ("prize", "Complimenti, hai vinto un premio. Clicca per riscuotere."),
    ("prize", "Gefeliciteerd, u heeft een cadeaubon gewonnen. Klik."),
    ("prize", "Gratulacje, wygrałeś nagrodę. Odbierz."),
    ("prize", "ご当選おめでとうございます。賞品はこちらからお受け取りください。"),
    ("prize", "恭喜您中奖，点击领取奖金。"),
    ("points", "Seus pontos expiram hoje. Resgate em até 24 horas."),
    ("points", "Your rewards points are expiring. Redeem your points now, within 24 hours."),
    ("points", "您的积分即将到期，请立即兑换。"),
    ("unexpected_balance", "You haven't visited your account for a while. You have $25,745 waiting. Withdraw it now."),
    ("unexpected_balance", "You registered a year ago. Your account has accumulated funds. Claim your bitcoin."),
    ("unexpected_balance", "Your account has been earning. You have $900 already. Withdraw your funds."),
    ("fine", "You have an unpaid toll. Pay now to avoid late fees."),
    ("fine", "Unpaid parking ticket: settle the fine online."),
    ("fine", "Vous avez une amende impayée, veuillez payer."),
    ("fine", "ETCサービスの利用料金をお支払いください。"),
    ("business_compromise", "Are you at your desk? I need a task done discreetly. Send me your cell phone number."),
    ("business_compromise", "Are you at your desk? Keep this confidential and get back to me asap."),
    ("business_compromise", "I have an urgent task for you. Send me your mobile number."),
    ("gift_cards", "Can you buy some Steam gift cards for me? Scratch the back and send the codes."),
    ("gift_cards", "I need you to get gift cards for staff. I will reimburse you."),
    ("gift_cards", "Bitte kaufen Sie für mich drei Geschenkkarten und schicken Sie ein Foto der Codes."),
    ("extortion", "I recorded you through your webcam. Pay 900 USD in bitcoin or I send the video to all contacts."),
    (
        "extortion",
        "Your device was hacked. Send bitcoin to bc1qxy2kgdygjrsqtzq2n0yrf2493p83kkfjhx0wlh. You have 48 hours.",
    ),
    (
        "extortion",
        "Ich habe Sie mit Ihrer Kamera gefilmt. Zahlen Sie in Bitcoin, sonst sende ich alles an Ihre Kontakte.",
    ),
    ("advance_fee", "My late husband left 4.5 million dollars. I am dying of cancer. Contact me for more details."),
    ("advance_fee", "You are the beneficiary of a fund of $10 million. Reply with your full name and address."),
    (
        "advance_fee",
        "I seek your assistance: a deceased client left 8 million USD, strictly confidential. 40% for you.",
    ),
    ("advance_fee", "Mi difunto esposo dejó una herencia de 5 millones de dólares. Responda con confianza."),
    ("stranger_deal", "I have a very lucrative deal. Get back to me with your phone."),
    ("stranger_deal", "A confidential business proposal for you, reply for more details."),
    ("stranger_deal", "Una propuesta de negocio confidencial; responda a mi correo."),
    ("loan", "We offer loans at 3% interest rate without collateral."),
    ("loan", "Do you need a loan? Low interest rate, bad credit no problem."),
    ("loan", "Wir vergeben Kredite: Kreditangebot mit 2% Zinsen ohne Schufa."),
    ("job_offer", "Work from home job: earn $400 weekly. Contact us on Telegram."),
    ("job_offer", "Mystery shopper needed. Get paid $300 per week. Reply with your name."),
    ("job_offer", "Part time job, no experience needed, earn $500 weekly, text us."),
    ("romance", "Dear friend, I saw your profile and I am looking for a serious relationship."),
    ("romance", "I am a lonely woman looking for love. I will send my photo, write me back soon."),
    ("romance", "I am a single lady here. My name is Anna and I am waiting for your reply."),
    ("investment", "Guaranteed daily profits with our bitcoin trading platform."),
    ("investment", "Double your bitcoin: invest today. High returns guaranteed."),
    ("investment", "Verdienen Sie täglich 900 € mit dem Bitcoin System."),
    ("crypto_wallet", "Your wallet is suspended. Verify your wallet now."),
    ("crypto_wallet", "Enter your seed phrase to restore the ledger device."),
    ("crypto_wallet", "Connect your MetaMask wallet and claim the airdrop."),
    ("adult", "Hot local women want to meet you tonight."),
    ("adult", "Ukrainian girls are waiting for your message."),
    ("adult", "Einsame Frauen suchen dich, sieh private Fotos im Profil."),
    ("gambling", "Casino: 100 free spins and a welcome bonus."),
    ("gambling", "Your casino deposit bonus is waiting, play now."),
    ("gambling", "Cassino online: bônus de depósito, cadastre-se e jogue."),
    ("miracle_cure", "Lose weight with keto gummies, no prescription."),
    ("miracle_cure", "Doctors hate this tinnitus trick."),
    ("miracle_cure", "Best prices for Viagra and Cialis, order now."),
    ("miracle_cure", "Abnehmen ohne Diät mit diesen Kapseln."),
]


@pytest.mark.parametrize(("finding_id", "text"), LURES)
def test_lure(finding_id: str, text: str) -> None:
    assert f"language.{finding_id}" in found(mail(STRANGER, subject="Hello", text=text, results=NOTHING), "language")


TWINS = [
    (
        "credential_urgency",
        "You asked to reset your password. This link works for 24 hours. If it was not you, ignore it.",
    ),
    ("credential_urgency", "Your order has shipped and should arrive within 48 hours. Log in to see it."),
    ("credential_urgency", "Last chance: the sale ends today. Click here for all offers."),
    ("account_notice", "Welcome! Your account is ready. Click below to set it up."),
    ("account_notice", "Please review the minutes and confirm the information by Friday."),
    ("account_notice", "Your bank statement for May is ready. Log in to see it."),
    ("verification_pressed", "Hello Dana, please confirm the data before tomorrow."),
    ("verification_pressed", "Dear customer, thank you for your visit. We hope to see you again."),
    ("verification_pressed", "Dear subscriber, here is the news of the week."),
    ("mailbox_notice", "The message could not be delivered: the recipient's mailbox is full."),
    ("mailbox_notice", "Pending changes of the release: see the list."),
    ("mailbox_notice", "Our inbox is open: send us your questions."),
    ("payment_failed", "Thank you for your payment. Here is your receipt."),
    ("payment_failed", "Your trial ends in three days. Choose a plan whenever you like."),
    ("payment_failed", "The invoice is due on 1 June. Please pay by bank transfer."),
    ("secrets_asked", "We will never ask for your password."),
    ("secrets_asked", "Choose a new password here."),
    ("secrets_asked", "No account uses the email address associated with your request for a new password."),
    ("secrets_asked", "Reply with your questions and we send the programme."),
    ("bank_change", "Your direct deposit of May was made."),
    ("bank_change", "Our bank holiday hours have changed."),
    ("bank_change", "Please transfer the amount to the account on the invoice."),
    ("document", "The documents are on the shared drive of the project."),
    ("document", "I attached a photo of the garden."),
    ("document", "The statement of the minister was reviewed."),
    ("voicemail", "Call me when you are back."),
    ("voicemail", "The new phones have voice control."),
    ("voicemail", "We missed you at the meeting."),
    ("parcel_fee", "Your parcel was delivered today at 10:42."),
    ("parcel_fee", "Your order is on its way. Track it here."),
    ("parcel_fee", "Ihr Paket ist unterwegs und kommt am Montag."),
    ("tax_refund", "Your tax return is due in July."),
    ("tax_refund", "We have refunded your order; the money is on its way."),
    ("tax_refund", "The government debated the new law."),
    ("prize", "Congratulations on your new job!"),
    ("prize", "Our survey of members: tell us what you think."),
    ("prize", "The Nobel prize goes to three chemists."),
    ("points", "You earned 20 points with this order."),
    ("points", "The agenda has five points."),
    ("points", "Your points are listed on your account page."),
    ("unexpected_balance", "Your balance of May is $120."),
    ("unexpected_balance", "It is a year since you registered. Happy birthday!"),
    ("unexpected_balance", "You have 3 new messages in your account."),
    ("fine", "It was a fine day at the lake."),
    ("fine", "The bridge has no toll any more."),
    ("fine", "Set the URL, the port, etc. Click here for the manual: URL and password are in it."),
    ("fine", "/etc/hosts holds the names; click the link, open the URL."),
    ("fine", "Thank you for paying for your parking."),
    ("business_compromise", "Are you available for a call on Tuesday at ten?"),
    ("business_compromise", "I need your help with the slides; call me any time."),
    ("business_compromise", "I am in a meeting until three, then home."),
    ("gift_cards", "Your gift card balance is $20."),
    ("gift_cards", "Gift cards make a good present. See our shop."),
    ("gift_cards", "Thank you for the gift, the staff loved it."),
    ("extortion", "Bitcoin fell by 4 percent this week, and ether by 6."),
    ("extortion", "Your device has an update. Install it when you like."),
    ("extortion", "The webcam of the harbour is back; share it with friends."),
    ("advance_fee", "As executor of the estate of the late Mr Ott I send you the inventory. Please call my office."),
    ("advance_fee", "Please donate: 5 euros feed a child. Thank you for your support of our charity."),
    ("advance_fee", "The company raised 40 million dollars in a round of funding."),
    ("stranger_deal", "We discussed the proposal and will write the minutes."),
    ("stranger_deal", "Good deal: two for one on Friday."),
    ("stranger_deal", "The opportunity to speak at the conference is yours."),
    ("loan", "The library reminds you that your loan is due."),
    ("loan", "Interest rates rose to 4 percent, says the central bank."),
    ("loan", "Your loan account statement is ready."),
    ("job_offer", "We would like to invite you to an interview for the position of engineer."),
    ("job_offer", "The working group meets weekly."),
    ("job_offer", "Here is the job log of last night: 40 jobs done."),
    ("romance", "Dear Dana, it was good to see you. Love, Lena"),
    ("romance", "We are looking for a speaker for the meeting."),
    ("romance", "Your profile was viewed 12 times."),
    ("investment", "Our annual report: profit rose by 3 percent."),
    ("investment", "The bitcoin library has a new release, see the changes."),
    ("investment", "Invest in your health: take a walk."),
    ("crypto_wallet", "I left my wallet at your place."),
    ("crypto_wallet", "The wallet library got a new release."),
    ("crypto_wallet", "The general ledger is closed for May."),
    ("miracle_cure", "With this recipe the bread rises. A recipe for soup follows tomorrow."),
    ("miracle_cure", "Thanks, this trick works! Another trick is to restart the server overnight."),
    ("miracle_cure", "The doctor wrote a prescription; the medicine is at your chemist's."),
    ("adult", "Women in science: a talk on Monday."),
    ("adult", "Girls' football: the profile of a coach."),
    ("adult", "Single room or double room?"),
    ("gambling", "The Monte Carlo method needs many samples."),
    ("gambling", "Two free slots on Tuesday for the talk."),
    ("gambling", "Your bonus will be paid in May."),
    ("miracle_cure", "Your prescription is ready at the pharmacy."),
    ("miracle_cure", "A recipe for pumpkin soup with cream."),
    ("miracle_cure", "The study followed 300 patients with diabetes."),
]


@pytest.mark.parametrize(("twin_of", "text"), TWINS)
def test_benign_twin(twin_of: str, text: str) -> None:
    assert f"language.{twin_of}" not in found(mail(STRANGER, subject="Hello", text=text, results=NOTHING), "language")


@pytest.mark.parametrize(
    "text",
    [
        "Your password expires in 5 days. Please change it in the portal before Friday to avoid losing access.",
        "New sign-in to your account from a new device. Not you? Reset your password immediately: click here.",
        "Your payment was declined. Please update your billing details to keep your subscription.",
        "Your payroll: from June your salary goes to the new bank account that you gave us.",
        "Dear customer, your invoice is attached. Please find the document and pay within 14 days.",
        "We could not deliver your parcel. Please schedule a new delivery here.",
        "Last chance! Claim your reward: you have been selected for 20% off. Click here.",
        "Phishing again: scammers say that your account will be suspended within 24 hours and want you to click here.",
        "Security course: somebody may ask you to buy gift cards and send the codes. A scam, and so is phishing.",
    ],
)
def test_honest_services_stay_clean(text: str) -> None:
    assert (
        verdict(mail("Harbour Bank <info@harbour-bank.com>", subject="A notice", text=text, results=PROVEN)) == "clean"
    )


@pytest.mark.parametrize("name_text", LURES[:24:5] + LURES[30::9], ids=str)
def test_words_alone_are_never_malicious(name_text: tuple[str, str]) -> None:
    assert verdict(mail(STRANGER, subject="Hello", text=name_text[1])) != "malicious"


def test_a_lure_from_an_unproven_sender_is_suspicious() -> None:
    text = "Dear customer, your account will be suspended within 24 hours. Click here to verify your account."
    assert verdict(mail(STRANGER, text=text, results=NOTHING)) == "suspicious"
    assert verdict(mail(STRANGER, text=text, results=PROVEN)) == "clean"


RENEWED = "Your subscription was renewed and $389.99 was charged to your account."
CANCEL = "If you did not authorize this transaction, call our support at"


@pytest.mark.parametrize("finding_id", ["callback"])
@pytest.mark.parametrize(
    "text",
    [
        f"{RENEWED} {CANCEL} +1 (888) 555-0134.",
        f"{RENEWED} {CANCEL} 1-888-555-0134 to cancel.",
        "Norton LifeLock. Your plan will be auto renewed today. Contact our helpdesk: (856)555-0134",
        "Ihr Abonnement wurde verlängert. Zum Stornieren rufen Sie an: +49 30 555 0134",
    ],
)
def test_callback(finding_id: str, text: str) -> None:
    assert f"language.{finding_id}" in found(mail(FREE, text=text), "language")


@pytest.mark.parametrize("twin_of", ["callback"])
@pytest.mark.parametrize(
    "text",
    [
        f"{RENEWED} {CANCEL} us.",  # no number
        "Thank you for your order of $50. Questions? Call us at 856 555 0134.",
        "Please call me at 856 555 0134 about the party.",
        f"{RENEWED} {CANCEL} 1-888-555-0134. https://harbour-bank.com/a https://harbour-bank.com/b",  # links lead home
    ],
)
def test_no_callback(twin_of: str, text: str) -> None:
    assert f"language.{twin_of}" not in found(mail(FREE, text=text), "language")


ACCOUNT = "Your account is suspended. Verify your identity within 24 hours."


@pytest.mark.parametrize("finding_id", ["in_a_services_name"])
@pytest.mark.parametrize("name", ["Netflix", "PayPal", "Microsoft"])
def test_in_a_services_name(finding_id: str, name: str) -> None:
    message = mail(STRANGER, subject=f"{name}: a notice", text=ACCOUNT)
    assert f"language.{finding_id}" in found(message, "language")


@pytest.mark.parametrize("twin_of", ["in_a_services_name"])
@pytest.mark.parametrize(
    ("sender", "text"),
    [
        ("Netflix <info@netflix.com>", f"Netflix. {ACCOUNT}"),  # its own
        (STRANGER, "Netflix raised its prices again."),  # no lure
        ("IT <it@harbour.example.org>", f"Microsoft 365. {ACCOUNT}"),  # the account's own house
    ],
)
def test_not_in_a_services_name(twin_of: str, sender: str, text: str) -> None:
    assert f"language.{twin_of}" not in found(mail(sender, text=text), "language")


@pytest.mark.parametrize("finding_id", ["service_from_free_mail"])
@pytest.mark.parametrize(
    "text", [ACCOUNT, "Your mailbox is full. Upgrade your quota here.", "You have won an iPhone. Claim your prize now."]
)
def test_a_service_from_free_mail_is_suspicious_though_proven(finding_id: str, text: str) -> None:
    assert f"language.{finding_id}" in found(mail(FREE, text=text), "language")
    assert verdict(mail(FREE, text=text)) == "suspicious"


@pytest.mark.parametrize("twin_of", ["service_from_free_mail"])
@pytest.mark.parametrize(
    ("sender", "text"),
    [
        (FREE, "See you on Monday. My account of the trip is attached."),
        (FREE, "Can you send me the document?"),
        (STRANGER, ACCOUNT),
    ],
)
def test_not_a_service_from_free_mail(twin_of: str, sender: str, text: str) -> None:
    assert f"language.{twin_of}" not in found(mail(sender, text=text), "language")


@pytest.mark.parametrize("finding_id", ["lure_from_free_mail"])
@pytest.mark.parametrize(
    "text",
    [
        "Are you available? I have an urgent task. I am in a meeting, reply here.",
        "We offer loans at 3% interest rate.",
        "Work from home job: earn $400 weekly. Contact us on Telegram.",
    ],
)
def test_lure_from_free_mail(finding_id: str, text: str) -> None:
    assert f"language.{finding_id}" in found(mail(FREE, text=text), "language")
    assert f"language.{finding_id}" not in found(mail(STRANGER, text=text), "language")


@pytest.mark.parametrize("twin_of", ["lure_from_free_mail"])
@pytest.mark.parametrize(
    "text",
    [
        "Are you available on Monday? I am in a meeting until ten.",
        "The interest rate of my loan went up to 3%.",
        "I work from home on Fridays; earn your keep, says Dana.",
    ],
)
def test_no_lure_from_free_mail(twin_of: str, text: str) -> None:
    assert f"language.{twin_of}" not in found(mail(FREE, text=text), "language")


@pytest.mark.parametrize("finding_id", ["vague_greeting"])
@pytest.mark.parametrize("greeting", ["Dear customer,", f"Hello {OWN},", "Sehr geehrter Kunde,", "尊敬的用户："])
def test_vague_greeting(finding_id: str, greeting: str) -> None:
    assert f"language.{finding_id}" in found(mail(STRANGER, text=f"{greeting}\n\n{ACCOUNT}"), "language")


@pytest.mark.parametrize("twin_of", ["vague_greeting"])
@pytest.mark.parametrize("text", [f"Dear Dana,\n\n{ACCOUNT}", "Dear customer, thank you.", f"Hello {OWN}, welcome."])
def test_no_vague_greeting(twin_of: str, text: str) -> None:
    assert f"language.{twin_of}" not in found(mail(STRANGER, text=text), "language")


LOCKED = "The file is attached. Password: 1234"
ARCHIVE = (("a.zip", "application/zip", b"PK"),)


@pytest.mark.parametrize("finding_id", ["locked_file"])
@pytest.mark.parametrize(
    "text", [LOCKED, "Senha do PDF: 123, arquivo em anexo.", "Im Anhang die Rechnung. Passwort: 777"]
)
def test_locked_file(finding_id: str, text: str) -> None:
    assert f"language.{finding_id}" in found(mail(STRANGER, text=text, attachments=ARCHIVE), "language")


@pytest.mark.parametrize("twin_of", ["locked_file"])
@pytest.mark.parametrize(
    ("text", "attachments"),
    [
        ("The password comes by telephone.", ARCHIVE),
        ("Your new password: see the vault.", ARCHIVE),
        ("The plan is attached.", ARCHIVE),
        (LOCKED, ()),
    ],
)
def test_no_locked_file(twin_of: str, text: str, attachments: tuple[tuple[str, str, bytes], ...]) -> None:
    assert f"language.{twin_of}" not in found(mail(STRANGER, text=text, attachments=attachments), "language")


def test_mailing_lists_talk_about_everything() -> None:
    headers = ("List-Id: Talk <talk.lists.example.net>",)
    message = mail(
        STRANGER,
        text=ACCOUNT,
        headers=headers,
        results="dkim=pass header.d=lists.example.net; dmarc=fail header.from={d}",
    )
    assert found(message, "language") == set()


def test_of_people_known_only_that_is_told_which_stolen_mailboxes_send() -> None:
    known = SenderHistory(known=True, account_messages=900, received=40, sent=12)

    def told(text: str) -> set[str]:
        prepared = prepare(mail(STRANGER, text=text), own_address=OWN, authserv_id=SERVER, history=known)
        return {one.id for detector in DETECTORS for one in detector(prepared)}

    assert told(ACCOUNT) == set()
    assert told("Can you buy gift cards for me? Send me the codes.") == {"language.gift_cards"}
    assert "language.bank_change" in told("We have changed our bank details. Send payments to the new account.")


def test_what_a_reply_quotes_is_not_what_it_says() -> None:
    text = f"Is this real? Lena\n\n> {ACCOUNT}"
    answer = mail(STRANGER, subject="Re: notice", text=text, headers=("In-Reply-To: <9@harbour.example.org>",))
    assert found(answer, "language") == set()
    assert found(mail(STRANGER, text=text), "language") != set()
    only_quotes = mail(STRANGER, text=f"> {ACCOUNT}", headers=("In-Reply-To: <9@harbour.example.org>",))
    assert found(only_quotes, "language") != set()


def test_who_warns_of_fraud_has_a_name() -> None:
    text = f"{ACCOUNT} So they write: phishing, that is, and smishing."
    assert found(mail(STRANGER, text=text), "language") == set()
    assert found(mail(STRANGER, text=text, results=NOTHING), "language") != set()
    assert found(mail(FREE, text=text), "language") != set()


def test_the_house_itself_may_say_so() -> None:
    assert found(mail("IT <it@harbour.example.org>", text=ACCOUNT), "language") == set()
    assert found(mail("IT <it@harbour.example.org>", text=ACCOUNT, results=NOTHING), "language") != set()


def test_every_lure_has_a_weight() -> None:
    names = {lure.name for lure in read_lures("language").lures}
    weighed = {one.partition(".")[2] for one in DEFAULT_TABLE.weights if one.startswith("language.")}
    assert names - {"renewal_call"} <= weighed
    assert DEFAULT_TABLE.supporting >= {"language"}


def test_a_long_text_is_read_from_its_beginning() -> None:
    prepared = context(mail(STRANGER, text=f"{ACCOUNT}\n" + "account verify click here " * 40_000, results=NOTHING))
    assert any(one.id == "language.credential_urgency" for one in assess(prepared).findings)
