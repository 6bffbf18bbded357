"""Letters that want an answer, a payment or a secret of their reader, and honest ones that sound alike."""

from __future__ import annotations

import pytest
from threat_mail import NOTHING, PROVEN, found, mail, verdict

STRANGER = "Lena Ott <lena@meadow-farm.com>"

LETTERS = [
    ("boss_in_a_hurry", "Are you at your desk? I need an urgent favor, I am in a meeting, no calls please."),
    ("boss_in_a_hurry", "Êtes-vous disponible ? J'ai besoin d'un service urgent. Répondez uniquement par mail."),
    ("boss_in_a_hurry", "在公司吗？我正在开会，请马上安排一笔付款，不要告诉其他人。"),
    ("secret_payment", "Can you process an outgoing wire of $48,750 today? Treat it as private for now."),
    ("secret_payment", "Bitte heute eine Auslandsüberweisung über 38.400 Euro. Sprechen Sie mit niemandem darüber."),
    ("secret_payment", "Hay que hacer una transferencia urgente. No lo comentes con nadie."),
    ("payroll_change", "I moved banks and would like my wages paid into the new account from this pay run."),
    ("payroll_change", "Ich habe die Bank gewechselt, bitte überweist mein nächstes Gehalt auf das neue Konto."),
    ("payroll_change", "My direct deposit has to change: I have a new bank account."),
    ("account_given", "We changed our bank. Send the payment to the new account LT12 3250 0334 1122 7890."),
    ("account_given", "Nous avons changé de banque. Prochaines factures : FR76 3000 6000 0112 3456 7890 189."),
    ("account_given", "Il nostro nuovo conto corrente: IT60X0542811101000000123456, pagamenti da oggi."),
    ("records_asked", "Please send me the current aging report with the customers' e-mails."),
    ("records_asked", "Kindly forward the W2 forms of all employees to me."),
    ("records_asked", "Share the list of vendors with contact e-mails and balances."),
    ("new_number", "Hi mum, my phone fell into the sink, this is my new number. Text me on WhatsApp."),
    ("new_number", "Hallo Mama, mein Handy ist kaputt, das ist meine neue Nummer. Schreib mir auf WhatsApp."),
    ("new_number", "Hola mamá, se me ha roto el teléfono, este es mi nuevo número. Escríbeme por WhatsApp."),
    ("legal_threat", "You visited sites with minors. Send your justification or an arrest warrant follows."),
    ("legal_threat", "Pédopornographie : envoyez vos justifications, sinon un mandat d'arrêt sera émis."),
    ("legal_threat", "Wegen Kinderpornografie läuft ein Strafverfahren gegen Sie. Ihre Stellungnahme bitte."),
    ("sign_in_to_see", "A document was shared. Sign in with your business email to view it."),
    ("sign_in_to_see", "Dokument: mit der geschäftlichen E-Mail-Adresse anmelden, um es anzusehen."),
    ("sign_in_to_see", "Documento compartido: introduce tu correo y contraseña para abrirlo."),
    ("staff_notice", "The employee handbook was revised. Please read it and acknowledge receipt."),
    ("staff_notice", "Open enrollment: select your benefits today."),
    ("staff_notice", "各位员工请扫描二维码申领个人劳动补贴。"),
    ("domain_ends", "Your domain name was suspended. Pay now to restore it."),
    ("domain_ends", "Ihre Domain läuft ab. Jetzt verlängern."),
    ("domain_ends", "Votre nom de domaine expire. Payer maintenant."),
    ("answer_wanted", "We give loans at 2% a year with no collateral. Send name and amount."),
    ("answer_wanted", "Earn $300 daily from your phone, no experience needed. A remote position, text us on WhatsApp."),
    ("answer_wanted", "Hello dear, I look for a kind man. Write to my mail and I will send you my pictures."),
]

HONEST = [
    "Are you at your desk? I need the plan for Monday, I am in a meeting until ten.",
    "Could you arrange the transfer of the boxes to the new store today?",
    "Please keep the list of presents between us, it is a surprise for Anna.",
    "Your salary for May was paid into your account.",
    "We changed our opening hours. You can pay in the shop.",
    "Please send me the report about bees that you spoke of.",
    "The list of speakers has changed, the programme is on the wall.",
    "Hi mum, the train is late, see you at eight.",
    "Mum has a new phone and is happy with it.",
    "The court asks for our statement about the fence, the lawyer sent a letter.",
    "The document is on the shared drive, as always.",
    "The handbook of the coffee machine lies beside it.",
    "We registered the domain for three years, all is well.",
    "The bank offers no loans to clubs, I asked them.",
    "We are looking for somebody who waters the flowers in June. Write to me if you can.",
    "I found your photo of the lake and like it much. Write to me when you are back.",
]


@pytest.mark.parametrize(("finding_id", "text"), LETTERS)
def test_what_a_letter_wants(finding_id: str, text: str) -> None:
    assert f"language.{finding_id}" in found(mail(STRANGER, subject="Hello", text=text), "language")


@pytest.mark.parametrize("text", HONEST)
def test_honest_letters(text: str) -> None:
    message = mail(STRANGER, subject="Hello", text=text, results=PROVEN)
    assert found(message, "language") & {f"language.{name}" for name, _ in LETTERS} == set()
    assert verdict(message) == "clean"


@pytest.mark.parametrize(
    ("text", "headers", "html"),
    [
        (
            "We give loans at 2% a year, no collateral: see our page.",
            ("List-Unsubscribe: <https://bank.example/u>",),
            "",
        ),
        ("", (), '<p>We give loans at 2% a year, no collateral.</p><a href="https://meadow-farm.com/loans">Loans</a>'),
        ("Our new account: DE12 5001 0517 0000 1122 33, if you want to give.", (), ""),
    ],
)
def test_who_says_where_to_look_is_not_after_an_answer(text: str, headers: tuple[str, ...], html: str) -> None:
    message = mail(STRANGER, text=text, headers=headers, html=html)
    assert "language.answer_wanted" not in found(message)


@pytest.mark.parametrize(
    "text",
    [
        "We changed our bank. Send the payment to the new account, we tell it by telephone.",
        "Invoice 7: please pay to DE12 5001 0517 0000 1122 33 within 14 days.",
        "Order AB12 3456 7890 1234 was sent.",
    ],
)
def test_an_account_is_given_with_a_change_only(text: str) -> None:
    assert "language.account_given" not in found(mail(STRANGER, text=text))


TWINS = [
    (
        "boss_in_a_hurry",
        "Are you available on Monday? I need you to handle the minutes. My phone number is on it.",
    ),
    ("boss_in_a_hurry", "I have a task for you: the urgent repair of the pier. Call the harbour master."),
    ("boss_in_a_hurry", "Are you free for lunch? Text me."),
    ("secret_payment", "The wire transfer of 48,000 euros arrived today. Thank you."),
    ("secret_payment", "The minutes are confidential. The payment of the fee is due in May."),
    ("secret_payment", "Please make the payment of the invoice within 14 days, as agreed."),
    ("payroll_change", "The payroll of May was paid to your account."),
    ("payroll_change", "We opened a new bank account for the club. The fee is 5 euros."),
    ("payroll_change", "Your payslip is in the portal. Salaries change in June."),
    ("records_asked", "Please send me the list of members and their boats."),
    ("records_asked", "All employees: the minutes of the staff meeting are attached."),
    ("records_asked", "The payroll records are kept for ten years."),
    ("new_number", "Hi Dana, I have a new number: 030 555 0134."),
    ("new_number", "Mum lost her phone at the pier, the harbour master found it."),
    ("new_number", "Our phone is broken until Monday. Write to us by mail."),
    ("sign_in_to_see", "The document is on the drive. Open it when you like."),
    ("sign_in_to_see", "You can sign in with your member number from Monday."),
    ("sign_in_to_see", "You are invited to the summer party at the pier."),
    ("staff_notice", "The staff meeting is on Monday at ten."),
    ("staff_notice", "I read the handbook of the pump. Page 4 tells how to open it."),
    ("staff_notice", "The annual review of the harbour is in the newspaper."),
    ("domain_ends", "Our domain was renewed for two years. Nothing is left to do."),
    ("domain_ends", "The domain of the function ends at zero."),
    ("domain_ends", "The membership expires in May. Renew it at the pier."),
    ("legal_threat", "The court of arbitration meets on Monday; the order of the day is attached."),
    ("legal_threat", "The newspaper reports on criminal proceedings against a former mayor."),
    ("legal_threat", "The child protection course for coaches: the police will speak."),
]


@pytest.mark.parametrize(("twin_of", "text"), TWINS)
def test_benign_twin(twin_of: str, text: str) -> None:
    assert f"language.{twin_of}" not in found(mail(STRANGER, subject="Hello", text=text, results=NOTHING), "language")


CHANGED = "We have changed our bank. Please send all payments to the new account from now on:"


@pytest.mark.parametrize("twin_of", ["account_given"])
@pytest.mark.parametrize(
    "text",
    [
        f"{CHANGED} see the attached letter.",
        f"{CHANGED}\nOrder DE-4711, article AB12 3456",
        "Please pay the invoice to our account as always: DE89 3704 0044 0532 0130 00",
    ],
)
def test_no_account_given(twin_of: str, text: str) -> None:
    assert f"language.{twin_of}" not in found(mail(STRANGER, text=text), "language")


OFFER = "We offer loans at 3% interest rate without collateral."


@pytest.mark.parametrize("twin_of", ["answer_wanted"])
@pytest.mark.parametrize(
    ("text", "headers", "attachments"),
    [
        (f"{OFFER} https://harbour-bank.com/loans", (), ()),
        (OFFER, ("List-Unsubscribe: <https://harbour-bank.com/u>",), ()),
        (OFFER, (), (("terms.pdf", "application/pdf", b"%PDF-1.4"),)),
        ("The loan of the book ends on Monday. Write to the library.", (), ()),
    ],
)
def test_no_answer_wanted(
    twin_of: str, text: str, headers: tuple[str, ...], attachments: tuple[tuple[str, str, bytes], ...]
) -> None:
    message = mail(STRANGER, text=text, headers=headers, attachments=attachments)
    assert f"language.{twin_of}" not in found(message, "language")
