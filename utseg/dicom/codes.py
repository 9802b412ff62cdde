"""The codes of structures and measures in the DICOM objects that we write.

They are those of DICOM PS3.16 (SNOMED CT, LOINC and DICOM's own; units of UCUM). What has none there has one of our own scheme, 99UTSEG.
"""

from pydicom.sr.coding import Code

OWN_SCHEME = "99UTSEG"
SHORT, LONG = 16, 64
"""The most letters of a code's value, and of its meaning."""
ANATOMY = Code("91723000", "SCT", "Anatomical Structure")  # CID 7150
LEFT_VENTRICLE = Code("87878005", "SCT", "Left ventricle")  # CID 7152
RIGHT_VENTRICLE = Code("53085002", "SCT", "Right ventricle")  # CID 7152
LV_MYOCARDIUM = Code("49848007", "SCT", "Left Ventricle Myocardium")  # CID 12305
SEGMENTS = {
    "LV": ("LV blood pool", LEFT_VENTRICLE),
    "MYO": ("LV myocardium", LV_MYOCARDIUM),
    "RV": ("RV blood pool", RIGHT_VENTRICLE),
}
"""By role: what a segment is called, and its type. PS3.16 has no code of a ventricle's cavity: the name says that it is the blood."""
MEASURES = {
    "LV_EDV": Code("8821-1", "LN", "Left Ventricular ED Volume"),  # CID 3835
    "LV_ESV": Code("8823-7", "LN", "Left Ventricular ES Volume"),
    "LV_SV": Code("90096001", "SCT", "Stroke Volume"),
    "LV_EF": Code("8811-2", "LN", "Left ventricular ejection fraction by MR"),  # CID 3833
    "RV_EDV": Code("8822-9", "LN", "Right Ventricular ED Volume"),  # CID 3835
    "RV_ESV": Code("8824-5", "LN", "Right Ventricular ES Volume"),
    "RV_SV": Code("429483009", "SCT", "RV Stroke Volume"),  # CID 12204
    "RV_EF": Code("8818-7", "LN", "Right ventricular ejection fraction by MR"),  # CID 3833
    "LV_mass": Code("18087-7", "LN", "Left Ventricle Mass"),  # CID 12203
    "LV_EDVI": Code("lv_edvi", OWN_SCHEME, "LV end-diastolic volume by body surface"),
    "LV_ESVI": Code("lv_esvi", OWN_SCHEME, "LV end-systolic volume by body surface"),
    "LV_SVI": Code("277381004", "SCT", "Stroke Index"),  # CID 12200
    "LV_mass_index": Code("lv_mass_index", OWN_SCHEME, "LV mass by body surface"),
    "RV_EDVI": Code("rv_edvi", OWN_SCHEME, "RV end-diastolic volume by body surface"),
    "RV_ESVI": Code("rv_esvi", OWN_SCHEME, "RV end-systolic volume by body surface"),
    "RV_SVI": Code("429619008", "SCT", "RV Stroke Index"),  # CID 12204
    "cardiac_output": Code("82799009", "SCT", "Cardiac Output"),  # CID 12200
    "cardiac_index": Code("54993008", "SCT", "Cardiac Index"),  # CID 12200
    "LV_peak_ejection": Code("122616", "DCM", "Peak Ejection Rate"),
    "LV_peak_filling": Code("122618", "DCM", "Peak Filling Rate"),
    "RV_peak_ejection": Code("122616", "DCM", "Peak Ejection Rate"),
    "RV_peak_filling": Code("122618", "DCM", "Peak Filling Rate"),
}
"""By the keys of `utseg.cardiac.volumes.UNITS`. The ventricle is that of the report's group."""
ED_FRAME = Code("ed_frame", OWN_SCHEME, "Frame of end diastole, counted from 1")
ES_FRAME = Code("es_frame", OWN_SCHEME, "Frame of end systole, counted from 1")
HEART_RATE = Code("8867-4", "LN", "Heart rate"), Code("/min", "UCUM", "/min")  # CID 12200
BODY_SURFACE = Code("8277-6", "LN", "BSA"), Code("m2", "UCUM", "square meter")  # CID 3455
NO_UNIT = Code("1", "UCUM", "no units")


def own_code(value: str, meaning: str) -> Code:
    """A code of our own scheme, cut to the letters that DICOM has room for."""
    return Code(value[:SHORT], OWN_SCHEME, meaning[:LONG])


def unit_code(unit: str) -> Code:
    """A unit as we write it ("ml/m²"), by UCUM."""
    return Code(unit.replace("²", "2"), "UCUM", unit.replace("²", "2"))
