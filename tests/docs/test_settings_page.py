from tools.make_settings_page import PAGE, page


def test_the_page_of_settings_is_up_to_date():
    assert PAGE.read_text() == page(), "run: python -m tools.make_settings_page"
