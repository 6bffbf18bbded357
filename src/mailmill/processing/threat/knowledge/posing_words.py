"""Words around a brand's name by which a writer claims to be it, as skeletons (lower case, no accents). Data only."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


GREETINGS: frozenset[str] = _words("""
    dear hello hi hey greetings attention attn valued hallo guten sehr liebe lieber bonjour cher chere madame hola
    estimado estimada querido querida apreciado ola prezado prezada caro cara gentile ciao salve beste geachte kjaere
    hej hei drogi szanowny drahy tisztelt
    """)

CUSTOMER_WORDS: frozenset[str] = _words("""
    customer customers client clients user users member members subscriber cardholder cardmember accountholder holder
    owner kunde kundin kunden nutzer mitglied utilisateur abonne membre cliente clientes usuario usuaria socio abonado
    utente abbonato klant lid kund kunder klient uzytkowniku
    """)

POSSESSIVES: frozenset[str] = _words("""
    your ihr ihre ihrem ihren ihrer dein deine deinem votre vos ton ta tu tus su sus seu sua seus suas il la tuo tua suo
    sua vostro uw je jouw din dit ditt twoje twoj
    """)

ACCOUNT_WORDS: frozenset[str] = _words("""
    account accounts mailbox membership subscription profile password wallet card login id access username inbox storage
    email mail payment billing package parcel shipment delivery order invoice plan konto kontos postfach mitgliedschaft
    passwort paket sendung lieferung rechnung karte zugang abo compte abonnement colis livraison carte facture acces
    cuenta suscripcion paquete envio tarjeta factura conta assinatura encomenda entrega cartao pacco spedizione account
    abbonamento carta fattura rekening pakket zending online banking profil refund tax
    """)

TEAM_WORDS: frozenset[str] = _words("""
    team teams support department dept desk helpdesk kundenservice kundendienst kundenbetreuung sicherheitsteam equipe
    equipo soporte suporte assistenza klantenservice administrator
    """)

LEGAL_WORDS: frozenset[str] = _words("""
    inc inc. incorporated llc ltd ltd. limited corp corp. corporation company co co. plc gmbh ag sa s.a sas s.a.s spa
    s.p.a bv b.v nv n.v oy ab as kg se kgaa s.a.r.l sarl n.a na pty pte pvt ltda bank platforms all rights alle tous
    todos tutti reserved and or its affiliates subsidiaries is are a registered trademark member fdic systems service
    international europe holdings group services
    """)

# Beginnings of a line after which a name signs.
SIGN_OFFS: tuple[str, ...] = (
    "regards", "best regards", "kind regards", "warm regards", "sincerely", "yours sincerely", "yours truly", "thanks",
    "thank you", "many thanks", "cheers", "best", "respectfully", "mit freundlichen", "freundliche", "viele grüße",
    "beste grüße", "ihr", "cordialement", "bien cordialement", "sincèrement", "salutations", "merci", "atentamente",
    "saludos", "un saludo", "gracias", "cordialmente", "atenciosamente", "obrigado", "cordiali saluti",
    "distinti saluti", "grazie", "met vriendelijke", "groeten", "med vänlig", "med venlig", "z poważaniem",
)  # fmt: skip

# What stands above a message that is passed on or quoted.
FORWARD_MARKS: tuple[str, ...] = (
    "forwarded message", "original message", "begin forwarded", "weitergeleitete nachricht",
    "ursprüngliche nachricht", "message transféré", "message d'origine", "mensaje reenviado", "mensaje original",
    "mensagem encaminhada", "messaggio inoltrato", "messaggio originale", "doorgestuurd bericht", "wrote:", "schrieb:",
    "a écrit :", "escribió:", "escreveu:", "ha scritto:",
)  # fmt: skip
