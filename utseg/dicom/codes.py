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
    "lv_edv_ml": Code("8821-1", "LN", "Left Ventricular ED Volume"),  # CID 3835
    "lv_esv_ml": Code("8823-7", "LN", "Left Ventricular ES Volume"),
    "rv_edv_ml": Code("8822-9", "LN", "Right Ventricular ED Volume"),
    "rv_esv_ml": Code("8824-5", "LN", "Right Ventricular ES Volume"),
    "lv_sv_ml": Code("90096001", "SCT", "Stroke Volume"),
    "rv_sv_ml": Code("429483009", "SCT", "RV Stroke Volume"),  # CID 12204
    "lv_ef_percent": Code("8811-2", "LN", "Left ventricular ejection fraction by MR"),  # CID 3833
    "rv_ef_percent": Code("8818-7", "LN", "Right ventricular ejection fraction by MR"),
    "lv_mass_g": Code("18087-7", "LN", "Left Ventricle Mass"),  # CID 12203
    "cardiac_output_l_min": Code("82799009", "SCT", "Cardiac Output"),  # CID 12200
    "cardiac_index_l_min_m2": Code("54993008", "SCT", "Cardiac Index"),
    "lv_svi_ml_m2": Code("277381004", "SCT", "Stroke Index"),
    "rv_svi_ml_m2": Code("429619008", "SCT", "RV Stroke Index"),  # CID 12204
    "lv_peak_ejection_rate_ml_s": Code("122616", "DCM", "Peak Ejection Rate"),
    "lv_peak_filling_rate_ml_s": Code("122618", "DCM", "Peak Filling Rate"),
    "ed_frame": Code("ed_frame", OWN_SCHEME, "Frame at end diastole, counted from 1"),
    "es_frame": Code("es_frame", OWN_SCHEME, "Frame at end systole, counted from 1"),
    "heart_rate_bpm": Code("8867-4", "LN", "Heart rate"),  # CID 12200
    "bsa_m2": Code("8277-6", "LN", "BSA"),  # CID 3455
}
"""By column of `measures.csv`."""
UNITS = {
    "l_min_m2": Code("l/min/m2", "UCUM", "liter per minute per square meter"),
    "ml_m2": Code("ml/m2", "UCUM", "milliliter per square meter"),
    "g_m2": Code("g/m2", "UCUM", "gram per square meter"),
    "l_min": Code("l/min", "UCUM", "liter per minute"),
    "ml_s": Code("ml/s", "UCUM", "milliliter per second"),
    "percent": Code("%", "UCUM", "Percent"),
    "bpm": Code("/min", "UCUM", "/min"),
    "ml": Code("ml", "UCUM", "milliliter"),
    "ms": Code("ms", "UCUM", "millisecond"),
    "m2": Code("m2", "UCUM", "square meter"),
    "kg": Code("kg", "UCUM", "kilogram"),
    "g": Code("g", "UCUM", "gram"),
    "m": Code("m", "UCUM", "meter"),
}
"""By the end of a column's name, the longest first."""
NO_UNIT = Code("1", "UCUM", "no units")


def own_code(value: str, meaning: str) -> Code:
    """A code of our own scheme, cut to the letters that DICOM has room for."""
    return Code(value[:SHORT], OWN_SCHEME, meaning[:LONG])


def measure_code(column: str) -> Code:
    """What a column of `measures.csv` is. One of our own has its name as value, which may be longer than SHORT, and as words."""
    words = column.removesuffix(f"_{_unit_of(column)}").replace("_", " ")
    return MEASURES.get(column) or Code(column, OWN_SCHEME, words.upper()[:LONG])


def unit_code(column: str) -> Code:
    """The unit of a column, by the end of its name."""
    return UNITS.get(_unit_of(column), NO_UNIT)


def _unit_of(column: str) -> str:
    return next((end for end in UNITS if column.endswith(f"_{end}")), "")
