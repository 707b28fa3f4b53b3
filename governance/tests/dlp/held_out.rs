//! Sentences that the rules were not built with. Each set was written before its first score was seen, and what that was is
//! told with it. Once its misses have been mended a set shows only that nothing gets worse, so the next one is written.

use aivillage_governance::dlp::DataKind;

/// Whole sentences without findings between which a value's sentence stands; `#` and the like as in `generate`.
pub(crate) const SECOND_OTHERS: &[&str] = &[
    "Flight BA### was late by 4# minutes.",
    "We sold 1,### units in week ##.",
    "The lake is ##.# km long and 1## m deep.",
    "Ticket ##### is still open, see line ### of the log.",
    "It rained.",
    "The invoice over 2.###,00 euros was number RE-20##-####.",
    "Bus ## goes every 1# minutes until 23:##.",
    "Python 3.1#.# and gcc 1#.2 are needed.",
    "Her lap time was 1:##.### on the new track.",
    "Ohm's law relates three quantities.",
    "ISBN 978-3-16-148410-0 is out of print.",
    "The vote was 2##:1## with 1# abstentions.",
];

/// First look at the second set, card codes aside: recall 0.959, precision 0.971.
pub(crate) fn second(kind: DataKind) -> &'static [&'static str] {
    match kind {
        DataKind::Email => &["cc {} and nobody else", "The newsletter goes to {}; stop it."],
        DataKind::Phone => &["Her number is {}, evenings only.", "Please call {} about the sofa"],
        DataKind::Fax => &["By fax, {} works on weekdays.", "Phone is dead but the fax {} lives."],
        DataKind::Ssn => &["On the W-2 it says {}.", "Applicant's SSN ({}) is on page two"],
        DataKind::Iban => &["Rent goes to {} each month.", "Konto: {}"],
        DataKind::Pan => &["Charge {} instead, please.", "I typed {} and it was declined"],
        DataKind::Cvv => &["and the cvv on the back is {}", "Enter cvc {} when asked."],
        DataKind::Passport => &["Her passport, {}, is valid until spring.", "travels on passport no {}"],
        DataKind::NationalId => &["Her personal identity number is {}.", "national ID {} verified"],
        DataKind::Coordinates => &["Meet at {} at dawn.", "The tower's position: {}"],
        DataKind::Date => &["Discharged {} in good health.", "The will was signed on {}, they say."],
        DataKind::Age => &["Grandmother is {} years old now.", "a man aged {} was found"],
        DataKind::Mrn => &["Patient ID {} has two charts.", "the medical record number was {}"],
        DataKind::HealthPlan => &["Her health plan {} refused.", "Policy {} covers it."],
        DataKind::Account => &["Wire it to account no {}.", "The account ending was {} I think"],
        DataKind::Licence => &["He showed licence {} at the door.", "nurse license: {}"],
        DataKind::Vin => &["Vehicle {} failed inspection.", "Engine swap on {} is done"],
        DataKind::Plate => &["A van with plates {} sped off.", "Kennzeichen {} steht im Hof"],
        DataKind::DeviceSerial => &["The implant's serial number is {}.", "returned device with serial {}"],
        DataKind::Url => &["Docs moved to {}!", "read {} first"],
        DataKind::Ip => &["Someone at {} tried root.", "ping {} fails"],
        DataKind::Biometric => &["Delete {} at once.", "her {} leaked"],
        DataKind::FaceImage => &["I uploaded {} twice.", "see {} in the album"],
        DataKind::UniqueId => &["Trace {} shows the error.", "sample {} was lost"],
        DataKind::Zip => &["They live in Ames, IA {}.", "My zip code is {} now"],
        DataKind::Address => &["The office at {} is closed.", "come to {} at eight"],
        _ => &["Someone pasted {} into the chat", "token: {}"],
    }
}

pub(crate) const THIRD_OTHERS: &[&str] = &[
    "Gate B## opens in ## minutes.",
    "The kiln reached 1,2## degrees before noon.",
    "Case study % fills pages ## to 1##.",
    "Mix ### ml of water with ## g of yeast.",
    "We ordered 2,### tiles at 0.## each.",
    "Level # needs %,### points.",
    "Line ### of parser.rs panics on input ###.",
    "Build ##### took # min ## s on 1# cores.",
    "A hundred years ago the valley had ## farms.",
    "Nothing else happened that week.",
    "Turnout was ##.# percent, # points more than before.",
    "Opus ##, number #, in C minor, lasts 2# minutes.",
];

/// Letters, notes of a ward, forms, logs and chats. First look at the third set: recall 0.966, precision 0.841, nearly all of
/// what was wrong an address that the tagger of names saw in every word with a number behind it ("Opus 49").
pub(crate) fn third(kind: DataKind) -> &'static [&'static str] {
    match kind {
        DataKind::Email => &["Reply-To: {}", "You can also write me at {} any time", "user={} status=active"],
        DataKind::Phone => {
            &["If it is urgent, dial {}.", "Emergency contact: {} (sister)", "Text me on {} when you land"]
        }
        DataKind::Fax => &["Results can be faxed to {}.", "Fax no. {}", "Send the referral by facsimile to {}."],
        DataKind::Ssn => &["Soc. Sec. No. {}", "Taxpayer SSN on file: {}.", "last used SSN {} for the loan"],
        DataKind::Iban => &["Donations are welcome at {}.", "Beneficiary IBAN: {}", "Bankverbindung: {}"],
        DataKind::Pan => &["Visa {} was billed twice.", "cardNumber={}", "She read {} aloud on the bus."],
        DataKind::Cvv => &["Security code: {}.", "The three digits (CVV2) are {}.", "csc {} entered"],
        DataKind::Passport => {
            &["Passport No: {}", "Her passport number {} was copied.", "reissued passport {} to the traveller"]
        }
        DataKind::NationalId => {
            &["ID card no. {} expired.", "citizen's identity number: {}", "National insurance / ID: {}"]
        }
        DataKind::Coordinates => &["Last known location {}.", "Pin dropped at {}", "lat/lon {} (WGS84)"],
        DataKind::Date => &["DOB {}", "Follow-up scheduled for {}.", "The accident happened on {} near the bridge"],
        DataKind::Age => &["{} y/o woman with a cough.", "The deceased was {} years of age.", "age {} at admission"],
        DataKind::Mrn => &["Chart no. {}", "Hospital number {} was assigned.", "Patient (MRN {}) is stable."],
        DataKind::HealthPlan => &["Insurance member number {}.", "Health plan ID: {}", "Group policy {} lapsed."],
        DataKind::Account => &["Acct. number: {}", "Please close bank account {}.", "The savings account {} is empty."],
        DataKind::Licence => &["DL# {}", "Medical licence number: {}.", "The driver's licence, {}, was suspended."],
        DataKind::Vin => &["VIN: {}", "The stolen vehicle ({}) was recovered.", "We insured {} last year."],
        DataKind::Plate => &["License plate {} was scanned.", "The number plate says {}.", "Plate: {}, colour red"],
        DataKind::DeviceSerial => &["S/N {}", "Serial: {}", "The pump with serial number {} alarmed."],
        DataKind::Url => &["Source: {}", "The form is at {}, sign it.", "href={}"],
        DataKind::Ip => &["Login from {} failed.", "remote_addr={}", "The host answers on {} only."],
        DataKind::Biometric => &["Attachment {} was encrypted.", "Matched {} with the gate.", "lost: {}"],
        DataKind::FaceImage => &["Please blur {} first.", "Uploaded file: {}", "the badge uses {}"],
        DataKind::UniqueId => &["request_id={}", "Device token {} expired.", "Participant {} withdrew."],
        DataKind::Zip => &["Send it to Reno, NV {}", "postal code: {}", "Our ZIP is {}, same as yours."],
        DataKind::Address => &["Home address: {}", "The ambulance went to {}.", "I grew up at {} with two dogs"],
        _ => &["curl -H 'X-Key: {}'", "my key is {} please do not share", "SECRET={}"],
    }
}

pub(crate) const FOURTH_OTHERS: &[&str] = &[
    "Row ## of the spreadsheet has a typo.",
    "The reservoir holds ##.# million litres.",
    "Exit ## is closed until further notice.",
    "They planted 3## trees along 1# km of road.",
    "Question % is worth ## points.",
    "Windows 1# needs ## GB on the disk.",
    "Our shift ended at 1#:4#.",
    "Nine of the 1## samples were broken.",
    "The second movement is slower than the first.",
    "Volume ## has ### pages and 1# maps.",
    "A pallet carries ### bricks of 2.# kg.",
    "Query took ##.# ms over 1,### rows.",
];

/// Reports, dictation, school offices, customs, tickets and code. First look at the fourth set, after the misses of the third were
/// mended: recall 1.000, precision 1.000, 150 rows of a kind. Its values are of the same forms as those of the other sets.
pub(crate) fn fourth(kind: DataKind) -> &'static [&'static str] {
    match kind {
        DataKind::Email => &["Mailto {} bounced twice.", "owner: {}", "Her address is {} since the merger"],
        DataKind::Phone => &["Parents can be reached under {}.", "phone={}", "The hotline {} is free of charge"],
        DataKind::Fax => {
            &["Kindly fax the signed copy to {}.", "Tel./Fax: see below, fax {}", "The old fax machine at {} is off."]
        }
        DataKind::Ssn => &["SSN on the form: {}", "The applicant wrote {} in box seven.", "social security no. {}"],
        DataKind::Iban => &["Reimbursement to {} within a week.", "iban={}", "The fee was debited from {} by mistake"],
        DataKind::Pan => &["Refund the purchase to card {}.", "payment_card: {}", "A cashier noted {} on paper."],
        DataKind::Cvv => &["cvv={}", "Type the security code {} below.", "His CVC is {}, he said."],
        DataKind::Passport => &[
            "passport_no={}",
            "Border police kept passport {} overnight.",
            "The visa is glued into passport number {}.",
        ],
        DataKind::NationalId => &[
            "The mayor's office issued identity number {}.",
            "national_id: {}",
            "Identification no. {} was misspelled",
        ],
        DataKind::Coordinates => &["The drone hovered over {}.", "coords={}", "Our camp is at {} this year"],
        DataKind::Date => &["Valid from {} onwards.", "date_of_birth: {}", "The stitches came out on {} without pain"],
        DataKind::Age => &[
            "At the age of {} she learned to swim.",
            "The oldest voter, {} years old, came first.",
            "patient_age: age {}",
        ],
        DataKind::Mrn => &["MRN={}", "Her medical record ({}) was misfiled.", "Please pull chart {} for tomorrow"],
        DataKind::HealthPlan => &["Subscriber ID {}", "The claim under policy {} was paid.", "member_id: member {}"],
        DataKind::Account => &["account={}", "Transfer the rest to account {} today.", "Kontonummer {} ist gesperrt"],
        DataKind::Licence => {
            &["driver_license={}", "Pharmacist licence {} was renewed.", "The permit {} allows fishing."]
        }
        DataKind::Vin => &["vin={}", "Chassis number {} does not match.", "Airbag recall concerns {} too."],
        DataKind::Plate => &["plate={}", "A camera read number plate {} at noon.", "Kennzeichen: {}"],
        DataKind::DeviceSerial => {
            &["serial={}", "Hearing aid, serial {}, was returned.", "Please quote the serial number {}."]
        }
        DataKind::Url => &["url: {}", "Everything is explained at {} in detail.", "Open {} and log in"],
        DataKind::Ip => &["src={}", "Packets from {} were dropped.", "The printer has the address {} now"],
        DataKind::Biometric => &["file {} is corrupt", "We never stored {} at all.", "type={}"],
        DataKind::FaceImage => &["Do not publish {}!", "img src={}", "The press used {} without asking"],
        DataKind::UniqueId => &["uuid={}", "Order {} is in the queue", "Session {} was closed by the user."],
        DataKind::Zip => &["Ship to Tulsa, OK {}.", "zip={}", "The postal code {} is rural"],
        DataKind::Address => &["Their warehouse is at {}.", "street_address: {}", "Firefighters rushed to {} at night"],
        _ => &["api_token: {}", "Someone committed {} last night.", "Authorization: Bearer {}"],
    }
}
